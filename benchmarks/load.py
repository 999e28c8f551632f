"""How many requests a second a server answers: one process, some connections, the next request as soon as an answer is whole."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

CONNECTIONS = 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED_END = b"0\r\n\r\n"


def request(method: str, path: str, body: bytes = b"") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def rate(port: int, sent: bytes, seconds: float) -> float:
    """Answers per second on the loopback. Raises AssertionError for one that is no success."""
    answers, begun = 0, time.perf_counter()
    with _connections(port) as (selector, buffers):
        for each in buffers:
            each.sendall(sent)
        while time.perf_counter() < begun + seconds:
            for key, _ in selector.select(1):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                buffers[connection] += connection.recv(65536)
                if whole(buffers[connection]):
                    answers += 1
                    buffers[connection] = b""
                    connection.sendall(sent)
        took = time.perf_counter() - begun
    assert answers, f"no answer within {seconds} s"
    return answers / took


def whole(answer: bytes) -> bool:
    """Whether all of an answer is there. Raises AssertionError for one that is no success, or none at all."""
    assert answer, "the connection was closed"
    head, parted, body = answer.partition(b"\r\n\r\n")
    if not parted:
        return False
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")), answer[:500]
    length = _LENGTH.search(head + b"\r\n")
    return len(body) == int(length[1]) if length else body.endswith(_CHUNKED_END)


@contextmanager
def _connections(port: int) -> Iterator[tuple[selectors.BaseSelector, dict[socket.socket, bytes]]]:
    with selectors.DefaultSelector() as selector:
        buffers = {socket.create_connection(("127.0.0.1", port), timeout=20): b"" for _ in range(CONNECTIONS)}
        try:
            for connection in buffers:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ)
            yield selector, buffers
        finally:
            for connection in buffers:
                connection.close()
