"""The loop: which jobs are worked on, and when.

Each job that needs an operator has one `_Work`, a task that makes passes over it (`reconcile.py`) whenever it is woken,
until nothing is left to do, beside one that ships its log. A wake-up is only an id: from Redis (a job came or was
deleted), from the backend (something of its pod changed), or from the resync, which looks at everything now and then.
Waiting jobs begin in order of arrival, as many at once as the settings say.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from dray.backends import Backend
from dray.errors import Stale, Unavailable
from dray.outputs import Outputs
from dray.reconcile import Reconciler
from dray.settings import Settings
from dray.store import Store
from dray.tasks import end

log = logging.getLogger(__name__)
_RESYNC = 10.0  # seconds between looks at everything
_CLEAN_WITHIN = 10.0  # seconds for the cleaning under way when the operator is told to stop
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 5.0  # seconds: back-off of a job that met Unavailable


class Loop:
    """One operator's. When it is told to end, what runs on the engine goes on, and the next operator finds it."""

    def __init__(self, settings: Settings, store: Store, backend: Backend, outputs: Outputs) -> None:
        self._settings, self._store, self._backend, self._outputs = settings, store, backend, outputs
        self._works: dict[str, _Work] = {}
        self._filling = asyncio.Event()

    async def run(self, told: asyncio.Event) -> None:
        """Until told to end. Raises BadSetting where the engine cannot be worked with."""
        operating, waiting = asyncio.create_task(self._operate()), asyncio.create_task(told.wait())
        try:
            await asyncio.wait([operating, waiting], return_when=asyncio.FIRST_COMPLETED)
            if operating.done():
                operating.result()
        finally:
            await end(operating, waiting)
            await self._stop()

    async def _operate(self) -> None:
        await _until_available(self._prepare, "starting")
        log.info("operator ready, %d jobs at once", self._settings.jobs)
        sources = [asyncio.create_task(_for_ever(source)) for source in (self._hear_store, self._hear_backend, self._resync, self._fill)]
        try:
            await asyncio.gather(*sources)
        finally:
            await end(*sources)

    async def _stop(self) -> None:
        """What is only being cleaned up may take a moment to be; the rest goes on without us, on the engine."""
        cleaning = [work.task for work in self._works.values() if work.over]
        if cleaning:
            await asyncio.wait(cleaning, timeout=_CLEAN_WITHIN)
        await end(*(work.task for work in self._works.values()))
        await self._backend.stop()

    async def _prepare(self) -> None:
        for weakness in await self._store.weaknesses():
            log.warning("Redis: %s: jobs may be lost", weakness)
        await self._backend.start(await self._store.instance())
        await self._backend.sweep(await self._store.active())

    # --- wake-ups

    async def _hear_store(self) -> None:
        async for job_id in self._store.wakes():
            if job_id is None:
                self._filling.set()
            else:
                await self._wake(job_id)

    async def _hear_backend(self) -> None:
        async for job_id in self._backend.wakes():
            for work in self._works.values() if job_id is None else filter(None, [self._works.get(job_id)]):
                work.wake()

    async def _resync(self) -> None:
        while True:
            for job_id in await self._store.active():
                self._work(job_id).wake()
            self._filling.set()
            await asyncio.sleep(_RESYNC)

    async def _wake(self, job_id: str) -> None:
        """A job that came, or was deleted: the latter must be read anew, and may be one that ended long ago."""
        self._filling.set()
        work = self._works.get(job_id)
        if work is not None:
            work.reread()
        else:
            job = await self._store.load(job_id)
            if job is not None and job.doomed:
                self._work(job_id).wake()

    # --- work

    async def _fill(self) -> None:
        """Begin waiting jobs, first come first, while there is room; those only being cleaned up take none."""
        while True:
            await self._filling.wait()
            self._filling.clear()
            cleaning = sum(work.over for work in self._works.values())
            running = len(self._works) - cleaning
            if running < self._settings.jobs and cleaning <= 2 * self._settings.jobs:
                first = await self._store.waiting(self._settings.jobs + cleaning)  # some may be begun here, but not yet recorded so
                new = [job_id for job_id in first if job_id not in self._works]
                for job_id in new[: self._settings.jobs - running]:
                    self._work(job_id).wake()

    def _work(self, job_id: str) -> _Work:
        if job_id not in self._works:
            reconciler = Reconciler(job_id, self._store, self._backend, self._outputs, self._settings)
            self._works[job_id] = _Work(reconciler, self._filling.set, lambda: self._done(job_id))
        return self._works[job_id]

    def _done(self, job_id: str) -> None:
        del self._works[job_id]
        self._filling.set()


class _Work:
    """One job's tasks. `freed` is called when the job has ended, `done` when nothing is left to do for it."""

    def __init__(self, reconciler: Reconciler, freed: Callable[[], None], done: Callable[[], None]) -> None:
        self._reconciler, self._freed, self._done = reconciler, freed, done
        self._woken = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    @property
    def over(self) -> bool:
        return self._reconciler.over

    def wake(self) -> None:
        self._woken.set()

    def reread(self) -> None:
        self._reconciler.forget()
        self._woken.set()

    async def _run(self) -> None:
        shipping = asyncio.create_task(self._reconciler.shipper.run())
        pause = _FIRST_PAUSE
        try:
            while not self._reconciler.done:
                await self._woken.wait()
                self._woken.clear()
                if await self._passes():
                    pause = _FIRST_PAUSE
                else:
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                    pause = min(2 * pause, _LAST_PAUSE)
                    self._woken.set()
        finally:
            await end(shipping)
        self._done()

    async def _passes(self) -> bool:
        """Passes until nothing is due; False when one met something that does not answer."""
        extra = {"job": self._reconciler.job_id}
        try:
            while await self._reconciler.step():
                if self.over:
                    self._freed()
        except Stale:
            self._reconciler.forget()
            self._woken.set()
        except Unavailable as error:
            self._reconciler.forget()
            log.warning("backing off: %s", error, extra=extra)
            return False
        except Exception:
            self._reconciler.forget()
            log.exception("a pass failed; backing off", extra=extra)
            return False
        return True


async def _for_ever(source: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        await _until_available(source, source.__name__.strip("_").replace("_", " "))


async def _until_available(work: Callable[[], Coroutine[Any, Any, None]], what: str) -> None:
    """Do it, again and again while something does not answer."""
    pause = _FIRST_PAUSE
    while True:
        try:
            return await work()
        except Unavailable as error:
            log.warning("%s: %s; again in %.1f s", what, error, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LAST_PAUSE)
