"""One pass over one object: read its job's record, decide once, do that one thing. And which objects, and when.

An object is due when the watch or a list shows it changed, when its job's record changed, when its time has come, and
now and then for no reason.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, assert_never

from dray import policy
from dray.clock import SECOND, microseconds
from dray.cluster import Absent, Conflict, Refused
from dray.crd import measures, status
from dray.crd.calls import WORKERS, Calls
from dray.crd.decide import Action, Cancel, Create, Delete, Doom, Hold, HoldBack, Publish, Refusal, Release, decide, due, overdue
from dray.crd.drayjob import DrayJob, version
from dray.crd.mirror import Mirror
from dray.crd.queue import Queue
from dray.errors import Finished, Invalid, NotFound, Unavailable
from dray.record import FINAL, Job, new_job
from dray.settings import Settings
from dray.store import Store
from dray.tasks import end

log = logging.getLogger(__name__)
_RESYNC = 10.0  # seconds between looks at all whose end has not been seen
_NEWS_PAUSE = 0.05  # seconds: a job that writes much is looked at no oftener
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 5.0  # seconds: back-off of an object that met Unavailable
_REFUSED_PAUSE = 60.0


class Controller:
    """Of the replica that leads. `saw` and `gone` tell it of objects, `known` is what it knows of them, by uid."""

    def __init__(self, store: Store, calls: Calls, settings: Settings) -> None:
        self._store, self._calls, self._settings = store, calls, settings
        self._queue = Queue(measures.DEPTH.set)
        self._mirror = Mirror(store, calls, settings.mirror_jobs) if settings.mirror_jobs else None
        self._pauses: dict[str, float] = {}
        self.known: dict[str, DrayJob] = {}

    def saw(self, body: Mapping[str, Any]) -> None:
        drayjob = self.known.get(body["metadata"]["uid"])
        if drayjob is None or version(drayjob.body) < version(body):
            self._keep(DrayJob(_slim(body)))

    def gone(self, uid: str) -> None:
        """The object is no more: nor shall its job be."""
        drayjob = self.known.pop(uid, None)
        measures.OBJECTS.set(len(self.known))
        if drayjob is None or drayjob.mirror_of is None:
            self._queue.add(uid)
        elif self._mirror is not None:
            self._mirror.gone(drayjob.job_id)

    def _keep(self, drayjob: DrayJob) -> None:
        self.known[drayjob.uid] = drayjob
        measures.OBJECTS.set(len(self.known))
        if self._mirror is not None and drayjob.mirror_of is not None:
            self._mirror.saw(drayjob.job_id, drayjob.uid)
        self._queue.add(drayjob.uid)

    async def run(self) -> None:
        """Until cancelled."""
        sources = [self._hear(self._store.wakes), self._hear(self._store.news), self._resync(), *(self._work() for _ in range(WORKERS))]
        if self._mirror is not None:
            sources.append(self._mirror.run())
        tasks = [asyncio.create_task(source) for source in sources]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end(*tasks)
            self._queue.close()

    # --- what is due

    async def _hear(self, channel: Callable[[], AsyncIterator[str | None]]) -> None:
        while True:
            with suppress(Unavailable):
                async for job_id in channel():
                    if job_id:
                        self._heard(job_id)
            await asyncio.sleep(1)

    def _heard(self, job_id: str) -> None:
        uid = job_id.lower()
        if uid not in self.known and self._mirror is not None:
            uid = self._mirror.heard(job_id) or uid
        if uid in self.known:
            self._queue.add_after(uid, _NEWS_PAUSE)

    async def _resync(self) -> None:
        while True:
            for uid, drayjob in self.known.items():
                if drayjob.completed_at is None or drayjob.mirror_of or drayjob.deleted_at:
                    self._queue.add(uid)
            await asyncio.sleep(_RESYNC)

    # --- passes

    async def _work(self) -> None:
        while True:
            uid = await self._queue.take()
            try:
                with measures.SECONDS.time():
                    await self._guarded(uid)
            finally:
                self._queue.done(uid)

    async def _guarded(self, uid: str) -> None:
        """Passes until nothing is due; later again where one failed."""
        try:
            while await self._pass(uid):
                pass
        except Unavailable as error:
            self._again(uid, "unavailable", None)
            log.warning("backing off: %s", error, extra={"job": uid.upper()})
        except Refused as error:
            self._again(uid, "refused", _REFUSED_PAUSE)
            log.error("the API server refuses it (%d): see the operator's permissions", error.status, extra={"job": uid.upper()})
        except Exception:
            self._again(uid, "failed", None)
            log.exception("a pass failed; backing off", extra={"job": uid.upper()})
        else:
            self._pauses.pop(uid, None)
            measures.PASSES.labels("done").inc()

    def _again(self, uid: str, why: str, pause: float | None) -> None:
        measures.PASSES.labels("error").inc()
        measures.ERRORS.labels(why).inc()
        known = self._pauses.get(uid, _FIRST_PAUSE)
        self._pauses[uid] = min(2 * known, _LAST_PAUSE)
        self._queue.add_after(uid, pause or known * random.uniform(0.5, 1.0))  # noqa: S311

    async def _pass(self, uid: str) -> bool:
        """Whether another one is due at once."""
        drayjob, now = self.known.get(uid), microseconds()
        if drayjob is None:
            await abandon(self._store, uid.upper())
            return False
        job = await self._record(drayjob, now)
        action = decide(drayjob, job, self._refusal(drayjob, job), now)
        if action is None:
            at = due(drayjob)
            if at is not None and at * SECOND > now:
                self._queue.add_after(uid, at - now / SECOND)
            return False
        log.debug("drayjob: %s", action.__class__.__name__.lower(), extra={"job": drayjob.job_id})
        try:
            return await self._do(drayjob, action, now)
        except (Conflict, Absent):
            return await self._look_again(drayjob)
        except (NotFound, Finished):
            return True  # its record went, or it ended, since it was read

    async def _record(self, drayjob: DrayJob, now: int) -> Job | None:
        """None where there is none, and where that cannot be told but the deletion may wait no longer."""
        try:
            return await self._store.load(drayjob.job_id)
        except Unavailable:
            if not overdue(drayjob, now):
                raise
            return None

    def _refusal(self, drayjob: DrayJob, job: Job | None) -> Refusal | None:
        if drayjob.mirror_of is not None:
            if drayjob.namespace == self._settings.mirror_jobs:
                return None
            return Refusal("NotAMirror", "mirrorOf is the operator's: it shows jobs in the namespace of --mirror-jobs only")
        if job is not None or drayjob.accepted or drayjob.deleted_at:
            return None
        try:
            fault = next(policy.refusals(drayjob.job_spec, self._settings), None)
        except Invalid as error:
            return Refusal("Invalid", str(error)[:1024])
        return None if fault is None else Refusal(status.camel(fault[1].reason), f"{fault[0]}: {fault[1].message}")

    async def _do(self, drayjob: DrayJob, action: Action, now: int) -> bool:
        match action:
            case HoldBack():
                self.saw(await self._calls.hold_back(drayjob))
            case Release():
                self.saw(await self._calls.release(drayjob))
                return False
            case Create():
                await self._store.create(new_job(drayjob.job_id, drayjob.job_spec, now))
            case Hold(held):
                await self._store.hold(drayjob.job_id, held)
            case Cancel():
                await self._store.cancel(drayjob.job_id)
            case Doom():
                await self._store.doom(drayjob.job_id)
            case Publish(wanted):
                await self._publish(drayjob, wanted, now)
            case Delete():
                await self._calls.delete(drayjob)
                return False
            case _:
                assert_never(action)
        return True

    async def _publish(self, drayjob: DrayJob, wanted: dict[str, Any], now: int) -> None:
        """The events first: each has a name that follows from what it tells, so telling again after a crash adds none."""
        for condition in status.transitions(drayjob.status, wanted):
            await self._calls.tell(drayjob, condition, now)
        self.saw(await self._calls.publish(drayjob, wanted))

    async def _look_again(self, drayjob: DrayJob) -> bool:
        """The object is not as it was known: another edited it, or it is gone."""
        try:
            body = await self._calls.get(drayjob.path)
        except Absent:
            body = None
        if body is None or body["metadata"]["uid"] != drayjob.uid:
            self.gone(drayjob.uid)
            return False
        self.saw(body)
        return True


async def abandon(store: Store, job_id: str) -> None:
    """Cancel and delete a job whose object is no more."""
    job = await store.load(job_id)
    if job is None or job.told.doomed:
        return
    log.info("its object is gone: cancelling and deleting it", extra={"job": job_id})
    with suppress(NotFound, Finished):
        if job.phase not in FINAL:
            await store.cancel(job_id)
    with suppress(NotFound):
        await store.doom(job_id)


def _slim(body: Mapping[str, Any]) -> dict[str, Any]:
    """Without what nobody asks for: who wrote which field and, of a job that is recorded, the steps."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in ("managedFields", "annotations", "labels")}
    spec = body.get("spec") or {}
    if "jobID" in (body.get("status") or {}):
        spec = {key: value for key, value in spec.items() if key in ("suspend", "ttlSecondsAfterFinished", "mirrorOf")}
    return {"metadata": metadata, "spec": spec, "status": body.get("status") or {}}
