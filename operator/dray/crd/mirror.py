"""Objects that show jobs which came another way: one for each, in one namespace, never run, gone when the job is.

They have the job's steps without the variables of their environments, whose values may be secrets.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from dray.cluster import Conflict, Refused
from dray.crd.calls import Calls
from dray.crd.drayjob import GROUP, KIND, NAME_LABEL, VERSION
from dray.errors import Unavailable
from dray.record import Job
from dray.store import Store

log = logging.getLogger(__name__)
_RESYNC = 60.0  # seconds between looks at all jobs


class Mirror:
    def __init__(self, store: Store, calls: Calls, namespace: str) -> None:
        self._store, self._calls, self._namespace = store, calls, namespace
        self._objects: dict[str, str] = {}  # job → uid
        self._passed_over: set[str] = set()  # jobs that have an object of their own, or can have none
        self._new: asyncio.Queue[str] = asyncio.Queue()

    def saw(self, job_id: str, uid: str) -> None:
        self._objects[job_id] = uid

    def gone(self, job_id: str) -> None:
        self._objects.pop(job_id, None)

    def heard(self, job_id: str) -> str | None:
        """The uid of the job's object; where it has none it is looked into."""
        if job_id not in self._objects and job_id not in self._passed_over:
            self._new.put_nowait(job_id)
        return self._objects.get(job_id)

    async def run(self) -> None:
        asking = asyncio.create_task(self._look_at_all())
        try:
            while True:
                await self._consider(await self._new.get())
        finally:
            asking.cancel()

    async def _look_at_all(self) -> None:
        while True:
            with suppress(Unavailable):
                async for ids in self._store.ids():
                    for job_id in ids:
                        self.heard(job_id)
            await asyncio.sleep(_RESYNC)

    async def _consider(self, job_id: str) -> None:
        if job_id in self._objects:
            return
        try:
            job = await self._store.load(job_id)
            if job is None or job.told.doomed:
                return
            if NAME_LABEL in job.spec.labels and job.origin is None:
                self._passed_over.add(job_id)
                return
            made = await self._calls.create(self._namespace, _shown(job))
            self._objects[job_id] = made["metadata"]["uid"]
        except Conflict:
            return
        except Unavailable as error:
            log.warning("mirroring: %s", error, extra={"job": job_id})
        except Refused as error:
            self._passed_over.add(job_id)
            log.warning("cannot be mirrored: the API server refuses it (%d)", error.status, extra={"job": job_id})


def _shown(job: Job) -> dict[str, Any]:
    given = job.spec.model_dump(mode="json", exclude_unset=True)
    spec = {key: value for key, value in given.items() if key != "environment"}
    spec["labels"] = {key: value for key, value in given.get("labels", {}).items() if not key.startswith(f"{GROUP}/")}
    spec["steps"] = [_step(step) for step in given["steps"]]
    metadata = {"name": f"job-{job.id.lower()}", "labels": {"app.kubernetes.io/managed-by": "dray"}}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": spec | {"mirrorOf": job.id}}


def _step(step: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in step.items() if key != "environment"}
    cpu = shown.get("resources", {}).get("cpu")
    if isinstance(cpu, float):
        shown["resources"] = shown["resources"] | {"cpu": str(cpu)}
    return shown
