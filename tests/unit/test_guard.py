"""Which names the API answers to, for each way it can listen. tests/contract/test_bad_input.py has the rest of the guard, over real connections."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from dray.settings import Settings
from dray_api.guard import Guard

LOOPBACK = Settings(allowed_hosts=("dray.example", "[fd00::1]"))
BEYOND = Settings(host="Dray.Internal.", no_auth=True, allowed_hosts=("dray.example",))
MACHINE = socket.gethostname()


def _status(settings: Settings, host: str) -> int:
    """What a GET with that Host is answered."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        raise AssertionError("the guard reads no body")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/jobs", "raw_path": b"/jobs", "query_string": b"", "headers": [(b"host", host.encode())]}
    asyncio.run(Guard(app, settings)(scope, receive, send))
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]", "dray.example", "DRAY.example:443", "[fd00::1]:3000"])
def test_on_loopback_we_are_loopback_and_what_is_configured(host: str) -> None:
    assert _status(LOOPBACK, host) == 200


@pytest.mark.parametrize("host", ["192.168.0.1", "[fd00::2]", "dray.internal", "x.dray.example", "dray.example.evil.example", "evil.example"])
def test_on_loopback_we_are_nothing_else(host: str) -> None:
    assert _status(LOOPBACK, host) == 403


@pytest.mark.parametrize("host", ["localhost", "dray.internal", "dray.internal.:3000", MACHINE, MACHINE.upper(), "dray.example", "10.1.2.3:3000", "[fd00::2]"])
def test_beyond_it_we_are_every_address_too_and_our_own_names(host: str) -> None:
    assert _status(BEYOND, host) == 200


@pytest.mark.parametrize("host", ["evil.example", "internal", f"x{MACHINE}", "10.1.2", "0x0a010203"])
def test_beyond_it_we_are_no_other_name(host: str) -> None:
    assert _status(BEYOND, host) == 403
