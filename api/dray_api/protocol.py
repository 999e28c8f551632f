"""uvicorn's HTTP protocol with what it lacks: an end to what it keeps of a request that does not end, and bodies beside an `Upgrade`."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dray_api import problems
from dray_api.guard import HeadersTooLarge

MAX_HEAD = 512 * 2**10  # bytes: more than one read, so that no whole request is over it; guard.py has the real limits
HEAD_WITHIN = 15.0  # seconds from the connection, or from the head's first byte, to the head's end
_SPARE = 0.25  # of the files that this process may open: for Redis, the engine and outputs, however many clients there are


class Protocol(HttpToolsProtocol):
    """Closes a connection on which request line and headers do not end within MAX_HEAD bytes and HEAD_WITHIN, and one too many.

    Answers who asks for another protocol, such as HTTP/2, in this one, as any server may.
    """

    _head = 0  # bytes read since headers began, as far as they are not complete
    _in_head = True
    _late: asyncio.TimerHandle | None = None
    parser: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > (1 - _SPARE) * resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head_is_there()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._in_head = 0, True
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_is_there()
        if self.parser.should_upgrade():
            self.parser.overlooked = _framing(self.headers)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.overlooked:
            super().on_message_complete()

    def _wait_for_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_WITHIN, self.transport.close)

    def _head_is_there(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            answer = problems.of(HeadersTooLarge(f"request line and headers are longer than {MAX_HEAD} bytes"))
            headers = b"".join(name + b": " + value + b"\r\n" for name, value in answer.raw_headers)
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n" + headers + b"\r\n" + bytes(answer.body))
        self.transport.close()


class _Parser:
    """httptools' parser, but for this: after the head of a request with `Upgrade` that one stops, and takes its body for another request.

    `overlooked`: the headers that tell of the body which is still to come; empty: none is.
    """

    overlooked = b""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._go_on_with(_made(protocol))

    def _go_on_with(self, parser: Any) -> None:
        self._feed: Callable[[bytes], None] = parser.feed_data
        self.get_http_version, self.get_method = parser.get_http_version, parser.get_method
        self.should_keep_alive, self.should_upgrade = parser.should_keep_alive, parser.should_upgrade

    def feed_data(self, data: bytes) -> None:
        """Raises HttpParserError."""
        while data:
            try:
                self._feed(data)
                break
            except httptools.HttpParserUpgrade as stopped:
                data = data[stopped.args[0] :]
                if self.overlooked:
                    self._go_on_with(_within(self._protocol, self.overlooked))
                    self.overlooked = b""


class _Deaf:
    """Callbacks of a protocol that are not called until `hears`."""

    hears = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def __getattr__(self, name: str) -> Callable[..., None]:
        told = getattr(self._protocol, name)
        return lambda *args: told(*args) if self.hears else None


def _made(callbacks: object) -> Any:
    parser = httptools.HttpRequestParser(callbacks)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
    return parser


def _within(protocol: Protocol, framing: bytes) -> Any:
    """A parser at the beginning of a body."""
    callbacks = _Deaf(protocol)
    parser = _made(callbacks)
    parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
    callbacks.hears = True
    return parser


def _framing(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Those that say how long the body is; empty where there is none."""
    found = [(name, value) for name, value in headers if name in (b"content-length", b"transfer-encoding")]
    if all(name == b"content-length" and not value.strip(b"0") for name, value in found):
        return b""
    return b"".join(name + b": " + value + b"\r\n" for name, value in found)
