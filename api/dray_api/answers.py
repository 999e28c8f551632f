"""Answers of any size with flat memory: JSON whole while it is short, else as it comes; bytes and events as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dray.outputs import joined

_AS_IT_IS = {"X-Content-Type-Options": "nosniff"}  # what a container wrote is no script of the page's
_DROPPED, _DROP_WITHIN = 2**30, 10.0  # bytes, seconds
_WHOLE = 64 * 2**10  # bytes: JSON up to this size is not streamed


def json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return encoded(orjson.dumps(value), status, headers)


def encoded(value: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """What is JSON already."""
    return Response(value, status, headers, "application/json")


async def json_pieces(pieces: AsyncIterator[bytes]) -> Response:
    """200 with one JSON value. The first pieces are read here, so that what they raise can still become another status."""
    begun: list[bytes] = []
    size = 0
    async for piece in pieces:
        begun.append(piece)
        size += len(piece)
        if size > _WHOLE:
            return _Stream(b"".join(begun), pieces, "application/json")
    return Response(b"".join(begun), media_type="application/json")


def few_octets(content: bytes) -> Response:
    return Response(content, headers=_AS_IT_IS, media_type="application/octet-stream")


async def octets(blocks: AsyncIterator[bytes], length: int) -> Response:
    """200 with exactly `length` bytes: more or fewer end the connection, so that nobody takes them for all. The first block is read here."""
    return _Stream(await anext(blocks, b""), blocks, "application/octet-stream", {**_AS_IT_IS, "Content-Length": str(length)})


async def events(pieces: AsyncIterator[bytes]) -> Response:
    """200 with server-sent events. The first piece is read here."""
    return _Stream(await anext(pieces), pieces, "text/event-stream", {"Cache-Control": "no-store"})


class Early(Response):
    """An answer while the request's body is still coming.

    What comes of it is dropped for a while: a client that sends all before it listens finds the answer too, where a
    connection that ends at once may lose it. Then the connection ends.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(bytes(answer.body), answer.status_code, {**answer.headers, "Connection": "close"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        dropped, more = 0, True
        with suppress(TimeoutError):
            async with asyncio.timeout(_DROP_WITHIN):
                while more and dropped < _DROPPED:
                    message = await receive()
                    more = message.get("more_body", False)
                    dropped += len(message.get("body", b""))
        await send({"type": "http.response.body"})


class _Stream(StreamingResponse):
    """Lets go of what it reads from when the client goes away, and reads nothing for a HEAD."""

    def __init__(self, begun: bytes, rest: AsyncIterator[bytes], media_type: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(joined(begun, rest), headers=headers, media_type=media_type)
        self._rest: Any = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "HEAD":
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body"})
            else:
                await super().__call__(scope, receive, send)
        finally:
            await self._rest.aclose()
