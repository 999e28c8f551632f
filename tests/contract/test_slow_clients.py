"""Clients that connect and do not go on: they are cut off, and others are served meanwhile."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from kit.api import Api

_FILES = 200


def connected(api: Api, said: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", api.port), timeout=30)
    made.sendall(said)
    return made


@pytest.mark.full
@pytest.mark.parametrize("said", [b"", b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nX: ", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he"])
def test_a_head_that_does_not_end_ends_the_connection(api: Api, said: bytes) -> None:
    with connected(api, said) as client:
        while client.recv(65536):
            pass


def test_a_body_may_take_longer_than_a_head(api: Api) -> None:
    with connected(api, b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n") as client:
        client.sendall(b"{}")
        assert client.recv(65536).startswith(b"HTTP/1.1 422")


def test_connections_leave_files_for_what_the_server_has_to_do(make_api: Callable[..., Api]) -> None:
    api = make_api()
    resource.prlimit(api.process.pid, resource.RLIMIT_NOFILE, (_FILES, _FILES))
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(connected(api)) for _ in range(_FILES * 3 // 4)]
        with connected(api) as one_more:
            assert one_more.recv(1) == b""
        clients[0].sendall(b"GET /jobs?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert clients[0].recv(65536).startswith(b"HTTP/1.1 200")
