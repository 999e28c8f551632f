"""The body of a POST: read no further than its limit, and decoded as strict JSON."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request

from dray.errors import Malformed, TooLarge
from dray_api import params

MAX_BODY = 2**20  # bytes
MAX_DEPTH = 32  # arrays and objects within each other


async def read(request: Request) -> bytes:
    """All of it. Raises TooLarge, at the latest once more than MAX_BODY has come, and ClientDisconnect."""
    if (params.length(request) or 0) > MAX_BODY:
        raise _too_large()
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_BODY:
            raise _too_large()
    return bytes(body)


def decode(body: bytes, what: str = "the body") -> Any:
    """The JSON value. Raises Malformed: what is wrong, and in which line and column (of bytes)."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(_undecodable(body, what) or f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and deeper(value, MAX_DEPTH):
        raise Malformed(f"{what} is nested deeper than {MAX_DEPTH} levels")
    return value


def _undecodable(body: bytes, what: str) -> str | None:
    """What to say where not even the characters are right."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        column = error.start - body.rfind(b"\n", 0, error.start)
        return f"{what} is not UTF-8: byte 0x{body[error.start]:02x} at line {line}, column {column}"
    return None


def deeper(value: Any, levels: int) -> bool:
    """Whether arrays and objects lie within each other more than `levels` deep. Level by level: no recursion."""
    level = [value]
    for _ in range(levels):
        level = [part for whole in level for part in (whole.values() if isinstance(whole, dict) else whole) if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {MAX_BODY} bytes")
