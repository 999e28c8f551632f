"""The output store: the last output of each job that is too large for Redis, behind a URL that fsspec understands.

A folder, a bucket: operator and API on different hosts need one that both reach. fsspec's calls block, so each runs in a
thread. An output appears under its name only when all of it is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import fsspec  # type: ignore[import-untyped]

from dray.errors import BadSetting, NotFound, Unavailable

_BLOCK = 2**20


class Outputs:
    """Raises Unavailable when the store behind the URL does not do what it is asked."""

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, auto_mkdir=True) if url.startswith("file:") else fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise BadSetting(f"DRAY_OUTPUTS: {error}") from None

    def _path(self, job_id: str) -> str:
        return f"{self._root.rstrip('/')}/{job_id}"

    async def put(self, job_id: str, blocks: AsyncIterator[bytes]) -> int:
        """Keep an output, over an earlier one of the job; its size in bytes."""
        partial, size = self._path(job_id) + ".partial", 0
        file = await _call(self._files.open, partial, "wb")
        try:
            async for block in blocks:
                await _call(file.write, block)
                size += len(block)
        finally:
            await _call(file.close)
        await _call(self._files.mv, partial, self._path(job_id))
        return size

    async def read(self, job_id: str) -> AsyncIterator[bytes]:
        """The output, block by block. Raises NotFound, at the first block."""
        file = await _call(self._files.open, self._path(job_id), "rb")
        try:
            while block := await _call(file.read, _BLOCK):
                yield block
        finally:
            await _call(file.close)

    async def remove(self, job_id: str) -> None:
        """Gone already is fine."""
        for path in (self._path(job_id), self._path(job_id) + ".partial"):
            try:
                await _call(self._files.rm_file, path)
            except NotFound:
                continue


async def _call(function: Any, *args: Any) -> Any:
    try:
        return await asyncio.to_thread(function, *args)
    except FileNotFoundError:
        raise NotFound("the output is not in the output store") from None
    except OSError as error:
        raise Unavailable(f"output store: {error}") from error
