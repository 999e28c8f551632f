"""The loop: which jobs are worked on, and when.

Each job that this operator owns has one `Work`, a task that makes passes over it (`reconcile.py`) whenever it is woken,
until nothing is left to do, beside one that ships its log. A wake-up is only an id: from Redis (a job came or a client
told something of one), from the backend (something of its pod changed), from the time, or from the resync, which looks
at everything now and then. Waiting jobs begin in order of arrival, as many at once as the settings say.

Jobs are owned by a lease. Whoever does not renew it in time, dead or only paused, loses them to the next operator that
looks, and can record nothing of them any more: every write carries the token under which its job was taken.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from dray import metrics
from dray.backends import Backend, Claims
from dray.errors import Invalid, NotFound, Unavailable
from dray.outputs import Outputs
from dray.preflight import preflight
from dray.reconcile import Reconciler, Tools
from dray.settings import Drain, Settings
from dray.spec import JobSpec
from dray.store import Store
from dray.tasks import Background, end, until
from dray.work import Work

log = logging.getLogger(__name__)
_RESYNC = 10.0  # seconds between looks at everything
_SWEEP = 600.0  # seconds between looks for what belongs to nobody
_CLEAN_WITHIN = 10.0  # seconds for the cleaning under way when the operator is told to stop
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 5.0  # seconds: back-off of what met Unavailable, but for jobs (work.py)
_STUCK = 300.0  # seconds without a look at everything, after which it does not turn any more
_OUTDATED = 100  # finished jobs removed at a time


class Loop:
    """One operator's. When it is told to end, what runs on the engine goes on, and the next operator finds it."""

    def __init__(self, name: str, settings: Settings, store: Store, backend: Backend, outputs: Outputs) -> None:
        self._name, self._settings, self._store, self._backend, self._outputs = name, settings, store, backend, outputs
        self._works: dict[str, Work] = {}
        self._filling, self._sweeping = asyncio.Event(), asyncio.Event()
        self._draining = self._stopping = False
        self._holds_until = 0.0  # by the monotonic clock, which goes on while a process is paused: our lease
        self._tried_at = time.monotonic()  # to look at everything, or to begin
        metrics.JOBS_OPEN.set_function(lambda: len(self._works))
        metrics.LEASE.set_function(self._holds)

    async def run(self, told: asyncio.Event) -> None:
        """Until told to end. Raises BadSetting where the engine cannot be worked with."""
        try:
            await until(told, self._operate(), self._drain if self._settings.drain is Drain.FINISH else None)
        finally:
            self._stopping = True
            await self._stop()

    @property
    def alive(self) -> bool:
        """Whether it turns: looks at everything, or tries to, as often as it should. What does not answer is no fault of its own."""
        return time.monotonic() < self._tried_at + _STUCK

    async def ready(self) -> None:
        """Raises Unavailable, naming what is not."""
        if self._stopping:
            raise Unavailable("the operator is stopping")
        await self._store.ping()
        await self._backend.ping()
        if not self._holds():
            raise Unavailable("the operator's lease does not hold")

    async def _operate(self) -> None:
        await _until_available(self._prepare, "starting")
        log.info("operator %s ready, %d jobs at once", self._name, self._settings.jobs)
        hearing = (self._hear_store, self._hear_backend)
        sources = (self._lease, *hearing, self._resync, self._fill, self._answer, self._retain, self._sweep, self._clear)
        tasks = [asyncio.create_task(_for_ever(source)) for source in sources]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end(*tasks)

    async def _drain(self, operating: asyncio.Task[None]) -> None:
        """Begin nothing more, and wait for what is begun."""
        self._draining = True
        log.info("finishing %d jobs", len(self._works))
        while self._works and not operating.done():
            await asyncio.wait([work.task for work in self._works.values()], return_when=asyncio.FIRST_COMPLETED)

    async def _stop(self) -> None:
        """What is only being cleaned up may take a moment to be; the rest goes on without us, on the engine."""
        cleaning = [work.task for work in self._works.values() if work.over]
        if cleaning:
            await asyncio.wait(cleaning, timeout=_CLEAN_WITHIN)
        await end(*(work.task for work in self._works.values()))
        await self._backend.stop()
        with suppress(Unavailable):
            await self._store.dismiss(self._name)

    async def _prepare(self) -> None:
        self._tried_at = time.monotonic()
        for weakness in await self._store.weaknesses():
            log.warning("Redis: %s: jobs may be lost", weakness)
        await self._store.upgrade()
        engine = await self._backend.start(await self._store.instance(), self._name)
        self._tools = Tools(self._store, self._backend, self._outputs, self._settings, self._name, engine, self._holds, self._running)
        await self._enlist()
        await self._take_over()
        await self._backend.sweep(self._claims)

    # --- leases

    async def _lease(self) -> None:
        """Renew it, three times before it would run out. One that ran out all the same is a new beginning."""
        while True:
            if not await self._enlist():
                log.warning("the lease ran out before it was renewed: looking anew at which jobs are ours")
                await self._recount()
            await asyncio.sleep(self._settings.lease / 3)

    async def _enlist(self) -> bool:
        asked = time.monotonic()
        kept = await self._store.enlist(self._name, self._tools.engine, self._settings.lease, self._settings.backend)
        self._holds_until = asked + self._settings.lease
        metrics.enlisted(kept)
        return kept

    def _holds(self) -> bool:
        return time.monotonic() < self._holds_until

    async def _recount(self) -> None:
        """Have the jobs looked at that another operator may have taken."""
        mine = frozenset(await self._store.mine(self._name))
        for job_id, work in self._works.items():
            if job_id not in mine:
                work.reread()
                self._sweeping.set()  # what stands for it here belongs to nobody, if it went on elsewhere

    async def _claims(self) -> Claims:
        return Claims(await self._store.active(self._tools.engine), await self._store.operators())

    async def _take_over(self) -> None:
        for job_id in await self._store.adopt(self._name, self._tools.engine, self._settings.takeover):
            log.info("taken over", extra={"job": job_id})
            metrics.TAKEN_OVER.inc()

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
            self._tried_at = time.monotonic()
            if not self._draining:
                await self._take_over()
            await self._recount()
            for job_id in await self._store.mine(self._name):
                self._work(job_id).wake()
            self._filling.set()
            await asyncio.sleep(min(_RESYNC, self._settings.lease))

    async def _wake(self, job_id: str) -> None:
        """A job that came, or of which a client told something: then it must be read anew, and may be one that ended long ago."""
        self._filling.set()
        work = self._works.get(job_id)
        if work is not None:
            work.reread()
        elif await self._store.adopt_one(job_id, self._name, self._tools.engine):
            self._work(job_id).wake()

    # --- work

    async def _fill(self) -> None:
        """Begin waiting jobs, first come first, while there is room; those only being cleaned up take none."""
        while True:
            await self._filling.wait()
            self._filling.clear()
            while not self._draining and self._has_room():
                job_id = await self._store.begin(self._name, self._tools.engine)
                if job_id is None:
                    break
                self._work(job_id).wake()

    def _has_room(self) -> bool:
        running = self._running()
        return running < self._settings.jobs and len(self._works) - running <= 2 * self._settings.jobs

    def _running(self) -> int:
        return sum(not work.over for work in self._works.values())

    def _work(self, job_id: str) -> Work:
        if job_id not in self._works:
            self._works[job_id] = Work(Reconciler(job_id, self._tools), self._filling.set, lambda: self._done(job_id))
        return self._works[job_id]

    def _done(self, job_id: str) -> None:
        self._works.pop(job_id, None)
        self._filling.set()

    # --- what else an operator does

    async def _sweep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP):
                    await self._sweeping.wait()
            self._sweeping.clear()
            await self._backend.sweep(self._claims)

    async def _clear(self) -> None:
        """Remove what was uploaded for jobs that were never recorded: its API died."""
        while True:
            for job_id in await self._store.abandoned(_OUTDATED):
                await self._outputs.remove(job_id)
                await self._store.uploaded_nothing(job_id)
                log.info("removed what was uploaded for a job that never came", extra={"job": job_id})
            await asyncio.sleep(_RESYNC)

    async def _answer(self) -> None:
        """Questions of the API about a job to be: can its images be had, are its secrets here."""
        answering = Background()
        try:
            while True:
                asked = await self._store.asked(self._settings.backend)
                if asked is not None:
                    answering.begin(self._answer_one(*asked))
        finally:
            await end(*answering)

    async def _answer_one(self, question: str, spec: JobSpec) -> None:
        answer: tuple[str, ...] | Invalid | Unavailable
        try:
            answer = await preflight(spec, self._backend, self._settings)
        except (Invalid, Unavailable) as error:
            answer = error
        except Exception:
            log.exception("a preflight failed")
            answer = Unavailable("the operator could not look: its log has the reason")
        with suppress(Unavailable):  # the client is told that nobody answered
            await self._store.answer(question, answer)

    async def _retain(self) -> None:
        """Remove finished jobs that the settings, or they themselves, keep no longer."""
        keep_time, keep_jobs = self._settings.keep_time, self._settings.keep_jobs
        while True:
            outdated = {*await self._store.expired(_OUTDATED), *await self._store.outdated(keep_time, keep_jobs, _OUTDATED)}
            for job_id in outdated:
                with suppress(NotFound):
                    await self._store.doom(job_id)
            if len(outdated) < _OUTDATED:
                await asyncio.sleep(_RESYNC)


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
