"""Calls to the API server from the event loop, in threads of their own: one that hangs keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from dray.cluster import Absent, Cluster, Conflict, Refused
from dray.crd.drayjob import FINALIZER, GROUP, KIND, VERSION, DrayJob, collection, timestamp
from dray.crd.status import Condition

WORKERS = 8
_PAGE = 500  # objects in one list
_NAME = 253 - 12  # characters of an object's name in that of its event


class Calls:
    """Each raises what `Cluster` raises. What changes an object returns its new state."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="kubernetes")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def get(self, path: str) -> Any:
        return await self._call(self._cluster.get, path)

    async def all(self, namespaces: tuple[str, ...]) -> list[dict[str, Any]]:
        """The metadata of every object of those namespaces; of all, where none is named."""
        found: list[dict[str, Any]] = []
        for namespace in namespaces or (None,):
            more: str | None = ""
            while more is not None:
                query = f"?limit={_PAGE}" + (f"&continue={more}" if more else "")
                page = await self._call(self._cluster.metadata, collection(namespace) + query)
                found += page["items"]
                more = page["metadata"].get("continue") or None
        return found

    async def hold_back(self, drayjob: DrayJob) -> Any:
        return await self._finalizers(drayjob, [*drayjob.finalizers, FINALIZER])

    async def release(self, drayjob: DrayJob) -> Any:
        return await self._finalizers(drayjob, [word for word in drayjob.finalizers if word != FINALIZER])

    async def _finalizers(self, drayjob: DrayJob, finalizers: list[str]) -> Any:
        metadata = {"uid": drayjob.uid, "resourceVersion": drayjob.body["metadata"]["resourceVersion"], "finalizers": finalizers}
        return await self._call(self._cluster.patch, drayjob.path, {"metadata": metadata})

    async def publish(self, drayjob: DrayJob, status: dict[str, Any]) -> Any:
        whole = dict.fromkeys(drayjob.status) | status
        return await self._call(self._cluster.patch, f"{drayjob.path}/status", {"metadata": {"uid": drayjob.uid}, "status": whole})

    async def create(self, namespace: str, body: dict[str, Any]) -> Any:
        return await self._call(self._cluster.create, collection(namespace), body)

    async def delete(self, drayjob: DrayJob) -> None:
        with suppress(Absent):
            await self._call(self._cluster.delete, drayjob.path, {"preconditions": {"uid": drayjob.uid}})

    async def tell(self, drayjob: DrayJob, condition: Condition, now: int) -> None:
        """An event about the object. Again for the same thing: nothing more. A namespace that is going takes none."""
        with suppress(Conflict, Refused, Absent):
            await self._call(self._cluster.create, f"/api/v1/namespaces/{drayjob.namespace}/events", _event(drayjob, condition, now))

    async def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)


def _event(drayjob: DrayJob, condition: Condition, now: int) -> dict[str, Any]:
    told = f"{drayjob.uid} {drayjob.generation} {condition.type} {condition.reason}"
    name = f"{drayjob.name[:_NAME]}.{hashlib.sha256(told.encode()).hexdigest()[:10]}"
    return {
        "metadata": {"name": name, "namespace": drayjob.namespace},
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "namespace": drayjob.namespace,
            "name": drayjob.name,
            "uid": drayjob.uid,
        },
        "type": "Warning" if condition.type == "Failed" else "Normal",
        "reason": condition.type if condition.holds else condition.reason,
        "message": condition.message if condition.type != "Failed" else f"{condition.reason}: {condition.message}",
        "source": {"component": "dray"},
        "reportingComponent": "dray.io/operator",
        "firstTimestamp": timestamp(now),
        "lastTimestamp": timestamp(now),
        "count": 1,
    }
