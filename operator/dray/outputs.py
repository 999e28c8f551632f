"""The output store: outputs of steps, and inputs of jobs, that are kept and too large for Redis, behind a URL that fsspec understands.

A folder, a bucket: operator and API on different hosts need one that both reach. fsspec's calls block, so each runs in a
thread. An output appears under its name only when all of it is there.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from dray.errors import BadSetting, Full, NotFound, Unavailable

_BLOCK = 2**20


class Outputs:
    """Raises Unavailable when the store behind the URL does not do what it is asked, Full where it has no room.

    `name`: of a step, its number; of a job's input `record.INPUT`.
    """

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, auto_mkdir=True) if url.startswith("file:") else fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise BadSetting(f"DRAY_OUTPUTS: {error}") from None

    def _folder(self, job_id: str) -> str:
        return f"{self._root.rstrip('/')}/{job_id}"

    def _path(self, job_id: str, name: int | str) -> str:
        return f"{self._folder(job_id)}/{name}"

    async def free(self) -> int | None:
        """Bytes that are free in it; None where it does not tell."""
        return await _call(_free, self._root) if isinstance(self._files, LocalFileSystem) else None

    async def put(self, job_id: str, name: int | str, blocks: AsyncIterator[bytes]) -> int:
        """Keep an output, over an earlier one of the name; its size in bytes.

        Halves that a crash left are removed. Each has a name of its own, since an operator that was paused may still write.
        """
        path, size = self._path(job_id, name), 0
        for left in await _call(self._files.glob, f"{path}.*.partial"):
            await self._remove(left)
        half = f"{path}.{secrets.token_hex(6)}.partial"
        try:
            file = await _call(self._files.open, half, "wb")
            try:
                async for block in large(blocks):
                    await _call(file.write, block)
                    size += len(block)
            finally:
                await _call(file.close)
            await _call(self._files.mv, half, path)
        except BaseException:
            await self._remove(half)
            raise
        return size

    async def copy(self, from_id: str, to_id: str, name: int | str) -> int:
        """Keep a job's output as one of another's. Raises NotFound."""
        return await self.put(to_id, name, self.read(from_id, name))

    async def read(self, job_id: str, name: int | str) -> AsyncIterator[bytes]:
        """The output, block by block. Raises NotFound, at the first block."""
        file = await _call(self._files.open, self._path(job_id, name), "rb")
        try:
            while block := await _call(file.read, _BLOCK):
                yield block
        finally:
            await _call(file.close)

    async def remove(self, job_id: str) -> None:
        """All of a job's; gone already is fine."""
        await self._remove(self._folder(job_id), recursive=True)

    async def _remove(self, path: str, recursive: bool = False) -> None:
        with suppress(NotFound):
            await _call(partial(self._files.rm, path, recursive=recursive))


async def _call(function: Any, *args: Any) -> Any:
    try:
        return await asyncio.to_thread(function, *args)
    except FileNotFoundError:
        raise NotFound("the output is not in the output store") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Full(f"output store: {error.strerror}") from error
        raise Unavailable(f"output store: {error}") from error


async def large(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of some size, since each that is written costs a turn of a thread."""
    gathered = bytearray()
    async for block in blocks:
        gathered += block
        if len(gathered) >= _BLOCK:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


async def joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What was read already, then the rest."""
    yield first
    async for block in rest:
        yield block


def _free(root: str) -> int:
    """Of the file system on which it lies, or will."""
    path = Path(root)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
