"""What `--kubernetes` runs beside the engine: one replica leads, watches the objects and works on them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from dray.cluster import Absent, Refused, cluster
from dray.crd import measures
from dray.crd.calls import Calls
from dray.crd.controller import Controller, abandon
from dray.crd.drayjob import NAME_LABEL, NAMESPACE_LABEL, DrayJob, collection, version
from dray.crd.lease import Lease
from dray.crd.watch import Watch
from dray.errors import Unavailable
from dray.settings import Settings
from dray.store import Filter, Store
from dray.tasks import end, until

T = TypeVar("T")
log = logging.getLogger(__name__)
_LOOK = 15.0  # seconds between lists of all objects
_STALLED = 60.0  # seconds that the watch may not tell of what a list shows
_SWEEP = 600.0  # seconds between looks for jobs whose objects are gone
_PAUSE = 2.0  # seconds before it is tried again
_PAGE = 500
_GONE = -1  # instead of the version of an object that is in no list any more


class DrayJobs:
    """`alive`: whether the watch tells what it should. `ready` raises Unavailable where the API server does not answer."""

    def __init__(self, name: str, settings: Settings, store: Store) -> None:
        self._name, self._settings, self._store = name, settings, store
        self._cluster = cluster()
        self._calls = Calls(self._cluster)
        self._namespaces = settings.namespaces
        if self._namespaces and settings.mirror_jobs and settings.mirror_jobs not in self._namespaces:
            self._namespaces += (settings.mirror_jobs,)
        self._stalled_since: float | None = None

    @property
    def alive(self) -> bool:
        return self._stalled_since is None or time.monotonic() < self._stalled_since + _STALLED

    async def ready(self) -> None:
        try:
            await self._calls.get(f"{collection(self._namespaces[0] if self._namespaces else None)}?limit=1")
        except Absent:
            raise Unavailable("the cluster has no DrayJobs: apply crds/drayjob.yaml") from None
        except Refused as error:
            raise Unavailable(f"the API server refuses DrayJobs ({error.status}): see the operator's permissions") from None

    async def run(self, told: asyncio.Event) -> None:
        """Until told to end."""
        try:
            await until(told, self._work())
        finally:
            self._calls.close()

    async def _work(self) -> None:
        instance = await self._until_it_answers(self._store.instance)
        await self._until_it_answers(self.ready)
        lease = Lease(self._cluster, self._settings.leader_lease or f"dray-{instance}", self._name)
        try:
            while True:
                await lease.acquire()
                log.info("dealing with DrayJobs in %s", ", ".join(self._namespaces) or "all namespaces")
                measures.LEADING.set(1)
                await self._lead_while(lease)
                measures.LEADING.set(0)
                log.warning("another replica deals with DrayJobs, or the API server cannot be reached")
        finally:
            await lease.release()

    async def _lead_while(self, lease: Lease) -> None:
        keeping, leading = asyncio.create_task(lease.keep()), asyncio.create_task(self._lead())
        try:
            await asyncio.wait([keeping, leading], return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                leading.result()
        except Exception:
            log.exception("dealing with DrayJobs failed; beginning again")
            await asyncio.sleep(_PAUSE)
        finally:
            await end(keeping, leading)

    async def _lead(self) -> None:
        self._stalled_since = None
        controller = Controller(self._store, self._calls, self._settings)
        watch = Watch(self._cluster, self._namespaces, self._told(controller.saw), self._told(controller.gone))
        tasks = [asyncio.create_task(work) for work in (controller.run(), watch.run(), self._look(controller), self._sweep(controller))]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end(*tasks)

    async def _until_it_answers(self, ask: Any) -> Any:
        while True:
            try:
                return await ask()
            except Unavailable as error:
                log.warning("DrayJobs: %s", error)
            await asyncio.sleep(_PAUSE)

    # --- what the watch may not tell

    def _told(self, call: Callable[[T], None]) -> Callable[[T], None]:
        """The call, which the watch makes: so it goes on."""

        def told(what: T) -> None:
            self._stalled_since = None
            call(what)

        return told

    async def _look(self, controller: Controller) -> None:
        """List all objects now and then. What two lists show and the watch did not tell in between is dealt with all the same."""
        missed: dict[str, int] = {}
        while True:
            await asyncio.sleep(_LOOK)
            try:
                found = {body["metadata"]["uid"]: body for body in await self._calls.all(self._namespaces)}
                differing = _differing(controller, found)
                untold = [uid for uid, state in differing.items() if missed.get(uid) == state]
                missed = differing
                if untold:
                    self._stalled()
                for uid in untold:
                    await self._deal_with(controller, uid, found.get(uid))
            except (Unavailable, Refused, Absent) as error:
                log.warning("listing DrayJobs: %s", type(error).__name__)

    async def _deal_with(self, controller: Controller, uid: str, found: dict[str, Any] | None) -> None:
        if found is None:
            controller.gone(uid)
            return
        with suppress(Absent):  # the next list will show that it is gone
            controller.saw(await self._calls.get(DrayJob(found).path))

    def _stalled(self) -> None:
        measures.STALLED.inc()
        log.error("the watch does not tell of objects that a list shows")
        self._stalled_since = self._stalled_since or time.monotonic()

    async def _sweep(self, controller: Controller) -> None:
        """Delete jobs whose objects were let go, or torn away, while Redis or every operator was gone."""
        while True:
            try:
                await self._sweep_once(controller)
            except (Unavailable, Refused) as error:
                log.warning("looking for jobs without objects: %s", type(error).__name__)
                await asyncio.sleep(_LOOK)
            else:
                await asyncio.sleep(_SWEEP)

    async def _sweep_once(self, controller: Controller) -> None:
        cursor: int | None = None
        while True:
            page = await self._store.page(Filter(labels=(NAME_LABEL,)), cursor, _PAGE)
            for job in page.jobs:
                if job.id.lower() not in controller.known and await self._orphaned(job.id, job.labels):
                    await abandon(self._store, job.id)
            cursor = page.cursor
            if cursor is None:
                return

    async def _orphaned(self, job_id: str, labels: dict[str, str]) -> bool:
        job = await self._store.load(job_id)
        if job is None or job.told.doomed or job.origin is not None:
            return False
        try:
            body = await self._calls.get(f"{collection(labels[NAMESPACE_LABEL])}/{labels[NAME_LABEL]}")
        except Absent:
            return True
        return bool(body["metadata"]["uid"] != job_id.lower())


def _differing(controller: Controller, found: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The objects of which a list shows another state than is known: uid → the version shown, or that it is gone."""
    newer = {uid: version(body) for uid, body in found.items() if uid not in controller.known or version(controller.known[uid].body) < version(body)}
    return newer | dict.fromkeys((uid for uid in controller.known if uid not in found), _GONE)
