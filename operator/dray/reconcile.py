"""One pass over one job: read the record and the pod, decide once, do that one thing, say whether anything is left.

`loop.py` calls it. Raises Unavailable when something does not answer and Stale when the record changed under it: both
mean again, later; nothing is half-done, since every action can be done twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import assert_never

from dray.backends import Backend
from dray.outputs import Outputs
from dray.settings import Settings
from dray.shipping import Shipper
from dray.state import (
    FINAL,
    Action,
    Close,
    Finish,
    Forget,
    Job,
    Launch,
    Open,
    Phase,
    Pod,
    Pull,
    Remake,
    Retire,
    Save,
    Shape,
    Stage,
    Tidy,
    decide,
    remade,
    spoiled,
)
from dray.store import SMALL_OUTPUT, Store

log = logging.getLogger(__name__)


def microseconds() -> int:
    return time.time_ns() // 1000


class Reconciler:
    """One job's driver for as long as it is worked on: it is the record's only writer, so it keeps what it saved."""

    def __init__(self, job_id: str, store: Store, backend: Backend, outputs: Outputs, settings: Settings, clock: Callable[[], int] = microseconds) -> None:
        self.job_id = job_id
        self.shipper = Shipper(job_id, store, backend)
        self.done = False  # nothing is left to do, or there is no such job
        self._job: Job | None = None
        self._store, self._backend, self._outputs, self._settings, self._clock = store, backend, outputs, settings, clock

    @property
    def over(self) -> bool:
        """Whether the job has ended, as far as the last pass saw: what is left is cleaning up."""
        return self._job is not None and self._job.phase in FINAL

    def forget(self) -> None:
        """Read the record anew at the next pass."""
        self._job = None

    async def step(self) -> bool:
        """One pass; whether another one is due at once."""
        job = self._job = self._job or await self._store.load(self.job_id)
        if job is None:
            self.done = True
            return False
        pod = await self._backend.look(job)
        self.shipper.seen(job)
        action = decide(job, pod, self._clock(), self._settings.ahead)
        if action is None:
            return False
        log.debug("%s", action.__class__.__name__.lower(), extra={"job": job.id})
        return await self._do(job, pod, action)

    async def _do(self, job: Job, pod: Pod, action: Action) -> bool:  # noqa: C901 (a case for each action)
        match action:
            case Save(seen):
                await self._save(seen)
            case Open():
                name = await self._backend.open(job)
                if job.pod is None:
                    await self._save(replace(job, pod=name))
            case Pull(step, early):
                await self._backend.pull(job, step, early)
            case Launch(step):
                await self._backend.launch(job, step)
            case Remake(step):
                await self._backend.remove(job, step)
                await self._save(remade(job, step))
            case Tidy(step):
                await self._tidy(job, pod, step)
            case Finish(seen):
                await self._finish(seen, pod)
            case Close():
                await self._backend.close(job)
            case Retire():
                await self._store.retire(job)
                self.done = True
            case Forget():
                await self._outputs.remove(job.id)
                await self._store.forget(job.id)
                self.done = True
            case _:
                assert_never(action)
        return not self.done

    async def _save(self, job: Job) -> None:
        before = self._job
        self._job = await self._store.save(job)
        _tell(before, self._job)

    async def _tidy(self, job: Job, pod: Pod, step: int) -> None:
        if pod.boxes[step, job.steps[step].attempt].stage is not Stage.ABSENT:
            await self._backend.remove(job, step)
        if step + 1 < job.current:
            await self._backend.drop(job, step)

    async def _finish(self, seen: Job, pod: Pod) -> None:
        if not seen.doomed:
            if pod.shape is Shape.OPEN:
                await self.shipper.drain(seen)
            if seen.phase is Phase.COMPLETE:
                seen = await self._with_output(seen)
        await self._save(seen)

    async def _with_output(self, job: Job) -> Job:
        try:
            return replace(job, output=await self._keep(job))
        except (_Truncated, FileNotFoundError):
            return spoiled(job, self._clock())

    async def _keep(self, job: Job) -> int:
        """The last step's output, to Redis where it is small, else to the output store; its size."""
        last = len(job.steps) - 1
        size = job.steps[last].bytes_out or 0
        blocks = self._backend.read_output(job, last)
        if size <= SMALL_OUTPUT:
            output = b"".join([block async for block in _exactly(blocks, size)])
            await self._store.keep_output(job.id, output)
            return size
        return await self._outputs.put(job.id, _exactly(blocks, size))


class _Truncated(Exception):
    """An output is not as long as the runner said."""


async def _exactly(blocks: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The blocks; raises _Truncated unless they end after just `size` bytes."""
    async for block in blocks:
        size -= len(block)
        if size < 0:
            break
        yield block
    if size:
        raise _Truncated


def _tell(before: Job | None, after: Job) -> None:
    """One log line for each change a person would want to read of."""
    if before is not None and before.phase is after.phase and before.steps == after.steps:
        return
    extra = {"job": after.id, "step": min(after.current + 1, len(after.steps)), "attempt": after.steps[min(after.current, len(after.steps) - 1)].attempt}
    if after.phase is Phase.ERROR:
        log.info("job failed: %s: %s", after.reason, after.message, extra=extra)
    elif after.phase is Phase.COMPLETE:
        log.info("job complete", extra=extra)
    else:
        log.info("job running, %d of %d steps complete", after.current, len(after.steps), extra=extra)
