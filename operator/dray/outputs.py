"""The output store: outputs of steps, and inputs of jobs, that are kept and too large for Redis, behind a URL that fsspec understands.

A folder, a bucket: operator and API on different hosts need one that both reach. fsspec's calls block, so each runs in a
thread; the threads are the store's own, so that one that hangs holds up nothing else. An output appears under its name
only when all of it is there.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from dray.errors import BadSetting, Full, NotFound, Unavailable

for _name in ("aiobotocore", "botocore", "s3fs"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they would log requests with their signatures, and answers whole

_BLOCK = 2**20
_PART = 16 * _BLOCK  # held in memory of each that is written, and read ahead; an object in a bucket has 10,000 at most
_CALLS = 16  # at a time


class Outputs:
    """Raises Unavailable when the store behind the URL does not do what it is asked, Full where it has no room.

    `name`: of a step, its number; of a job's input `record.INPUT`.
    """

    def __init__(self, url: str) -> None:
        options = {"use_listings_cache": False} | ({"auto_mkdir": True} if url.startswith("file:") else {})  # others write there too
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, **options)
        except (ValueError, ImportError) as error:
            raise BadSetting(f"DRAY_OUTPUTS: {error}") from None
        self._threads = ThreadPoolExecutor(_CALLS, "outputs")

    def _folder(self, job_id: str) -> str:
        return f"{self._root.rstrip('/')}/{job_id}"

    def _path(self, job_id: str, name: int | str) -> str:
        return f"{self._folder(job_id)}/{name}"

    async def free(self) -> int | None:
        """Bytes that are free in it; None where it does not tell."""
        return await self._call(_free, self._root) if isinstance(self._files, LocalFileSystem) else None

    async def put(self, job_id: str, name: int | str, blocks: AsyncIterator[bytes]) -> int:
        """Keep an output, over an earlier one of the name; its size in bytes.

        Halves that a crash left are removed. Each has a name of its own, since an operator that was paused may still write.
        """
        path = self._path(job_id, name)
        for left in await self._make(self._files.glob, f"{path}.*.partial"):
            await self._remove(left)
        half = f"{path}.{secrets.token_hex(6)}.partial"
        try:
            size = await self._write(half, blocks)
            await self._make(self._files.mv, half, path)
        except BaseException:
            with suppress(Unavailable):  # the next one removes it, or the end of the job
                await self._remove(half)
            raise
        return size

    async def _write(self, path: str, blocks: AsyncIterator[bytes]) -> int:
        size, file = 0, await self._make(self._files.open, path, "wb", _PART)
        try:
            async for block in large(blocks):
                await self._make(file.write, block)
                size += len(block)
        finally:
            await self._make(file.close)
        return size

    async def copy(self, from_id: str, to_id: str, name: int | str) -> int:
        """Keep a job's output as one of another's. Raises NotFound."""
        return await self.put(to_id, name, self.read(from_id, name))

    async def read(self, job_id: str, name: int | str) -> AsyncIterator[bytes]:
        """The output, block by block. Raises NotFound, at the first block."""
        file = await self._call(self._files.open, self._path(job_id, name), "rb", _PART)
        try:
            while block := await self._call(file.read, _BLOCK):
                yield block
        finally:
            await self._call(file.close)

    async def remove(self, job_id: str) -> None:
        """All of a job's; gone already is fine."""
        await self._remove(self._folder(job_id), recursive=True)

    async def _remove(self, path: str, recursive: bool = False) -> None:
        with suppress(NotFound):
            await self._call(partial(self._files.rm, path, recursive=recursive))

    async def _make(self, function: Any, *args: Any) -> Any:
        """The same as `_call` for something new: what is not found then is the place for it, such as the bucket."""
        try:
            return await self._call(function, *args)
        except NotFound as error:
            raise Unavailable(f"output store: {self._root}: {error.__cause__}") from error

    async def _call(self, function: Any, *args: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        except FileNotFoundError as error:
            raise NotFound("the output is not in the output store") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Full(f"output store: {error.strerror}") from error
            raise Unavailable(f"output store: {error}") from error
        except Exception as error:  # a bucket's client has some of its own, such as for a login that is nowhere
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
