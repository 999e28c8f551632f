"""Answers of any size with flat memory: short ones whole, longer ones as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

_WHOLE = 64 * 2**10  # bytes: an answer up to this size is not streamed

JSON = "application/json"
BYTES = "application/octet-stream"


async def answer(blocks: AsyncIterator[bytes], media_type: str, length: int | None = None) -> Response:
    """200 with the blocks. The first are read here, so what they raise can still become another status."""
    begun: list[bytes] = []
    size = 0
    async for block in blocks:
        begun.append(block)
        size += len(block)
        if size > _WHOLE:
            headers = None if length is None else {"Content-Length": str(length)}
            return _Stream(_on(b"".join(begun), blocks), headers=headers, media_type=media_type)
    return Response(b"".join(begun), media_type=media_type)


async def _on(begun: bytes, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield begun
        async for block in blocks:
            yield block
    finally:
        await _close(blocks)


class _Stream(StreamingResponse):
    """Ends what it reads from when the client goes away, and reads nothing for a HEAD."""

    def __init__(self, blocks: AsyncIterator[bytes], media_type: str, headers: Mapping[str, str] | None) -> None:
        super().__init__(blocks, headers=headers, media_type=media_type)
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "HEAD":
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body"})
            else:
                await super().__call__(scope, receive, send)
        finally:
            await _close(self._blocks)


async def _close(blocks: AsyncIterator[bytes]) -> None:
    aclose: Any = getattr(blocks, "aclose", None)
    if aclose is not None:
        await aclose()
