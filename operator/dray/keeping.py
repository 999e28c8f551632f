"""What is kept of the steps' outputs: the last one always, the others up to DRAY_KEEP_OUTPUTS, so that a rerun or another
operator can go on in the middle. Small ones lie in Redis, larger ones in the output store.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from dray.backends import Backend
from dray.errors import NotFound
from dray.outputs import Outputs, joined
from dray.pod import Key
from dray.record import INPUT, Job, Phase
from dray.settings import Settings
from dray.store import SMALL_OUTPUT, Store


class Truncated(Exception):
    """An output is not what the runner said it was."""


class Keeper:
    """Of one job; remembers what it has kept, and keeping again is the same."""

    def __init__(self, store: Store, backend: Backend, outputs: Outputs, settings: Settings) -> None:
        self._store, self._backend, self._outputs, self._most = store, backend, outputs, settings.keep_outputs
        self._kept: set[Key] = set()

    async def keep_last(self, job: Job) -> int:
        """The job's output; its size. Raises Truncated or FileNotFoundError where it is not as it was when its step ended."""
        step = job.spec.pipe - 1
        await self.keep_whole(job, step)
        return job.steps[step].bytes_out or 0

    async def keep(self, job: Job, key: Key) -> None:
        """The output of an attempt that ended well and that another step reads, unless it is too large or already spoiled."""
        step, attempt = key
        state = job.steps[step]
        wanted = step < job.spec.pipe and state.phase is Phase.COMPLETE and state.attempt == attempt and (state.bytes_out or 0) <= self._most
        if job.told.doomed or not wanted or self._most == 0 or key in self._kept:
            return
        try:
            await self._keep(job, step)
        except (Truncated, FileNotFoundError):
            return

    async def keep_whole(self, job: Job, step: int) -> None:
        """The output of a step, whatever its size. Raises as `keep_last` does."""
        if (step, job.steps[step].attempt) not in self._kept:
            await self._keep(job, step)

    async def keep_all(self, job: Job) -> None:
        """The small ones together, as the job's end waits for them; of the large ones one at a time, as each takes memory."""
        small = [step for step in range(job.spec.pipe - 1) if (job.steps[step].bytes_out or 0) <= SMALL_OUTPUT]
        await asyncio.gather(*(self.keep(job, (step, job.steps[step].attempt)) for step in small))
        for step in range(job.spec.pipe - 1):
            await self.keep(job, (step, job.steps[step].attempt))

    async def find(self, job: Job, step: int) -> AsyncIterator[bytes] | None:
        """A kept output, block by block; None where it is not kept. Raises Truncated, before its end, where it is not as it was."""
        state = job.steps[step]
        return await self._find(job, step, state.bytes_out or 0, state.sha256)

    async def find_input(self, job: Job) -> AsyncIterator[bytes] | None:
        """The same of the job's input."""
        assert job.input is not None  # decide: else there is none to give
        return await self._find(job, INPUT, *job.input)

    async def _find(self, job: Job, name: int | str, size: int, sha256: str) -> AsyncIterator[bytes] | None:
        if size <= SMALL_OUTPUT:
            output = await self._store.small_output(job.id, name)
            return None if output is None else _exactly(_one(output), size, sha256)
        blocks = self._outputs.read(job.id, name)
        try:
            first = await anext(blocks, b"")
        except NotFound:
            return None
        return _exactly(joined(first, blocks), size, sha256)

    async def _keep(self, job: Job, step: int) -> None:
        state = job.steps[step]
        blocks = _exactly(self._backend.read_output(job, step), state.bytes_out or 0, state.sha256)
        if (state.bytes_out or 0) <= SMALL_OUTPUT:
            await self._store.keep_output(job, step, b"".join([block async for block in blocks]))
        else:
            await self._outputs.put(job.id, step, blocks)
        self._kept.add((step, state.attempt))


async def _exactly(blocks: AsyncIterator[bytes], size: int, sha256: str) -> AsyncIterator[bytes]:
    """The blocks; raises Truncated unless they end after as many bytes, with the same hash, as was noted ("": none was)."""
    left, hashed = size, hashlib.sha256()
    async for block in blocks:
        left -= len(block)
        if left < 0:
            break
        hashed.update(block)
        yield block
    if left or (sha256 and hashed.hexdigest() != sha256):
        raise Truncated


async def _one(block: bytes) -> AsyncIterator[bytes]:
    yield block
