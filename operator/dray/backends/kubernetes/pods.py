"""Every pod of the instance, as one watch tells of them: a list, then what changes; a list again where the watch cannot go on.

So what the API server knows of a pod costs no call. Of a pod that was deleted, what was told last is remembered for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from dray.backends.kubernetes import names
from dray.backends.kubernetes.api import Api, Expired
from dray.errors import Unavailable
from dray.tasks import end

log = logging.getLogger(__name__)
_PAUSE = 1.0  # seconds before a watch that failed is begun again
_RENEWED = "300"  # seconds after which a watch ends, and all is listed anew
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Container:
    """Of a pod. `state`: waiting, running or terminated; `reason` and `message` why; `code`: how it ended."""

    state: str = "waiting"
    reason: str = ""
    message: str = ""
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A pod as the API server has it.

    `changed_at`: when it was made, or one of its conditions changed last, by the cluster's clock; `since`: when that was first
    seen here, in seconds of `time.monotonic`, whatever the two clocks differ by. `reason`, `message`: why it failed as a
    whole. `disrupted`: why the cluster takes it away; `unscheduled`: why no node has it. `going`: it is being deleted;
    `deleted`: it is gone, and this is what was told last. `images`: by container.
    """

    uid: str
    name: str
    job: str
    changed_at: str
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    disrupted: str = ""
    unscheduled: str = ""
    going: bool = False
    deleted: bool = False
    since: float = field(default_factory=time.monotonic)
    containers: Mapping[str, Container] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)

    @property
    def begun(self) -> bool:
        """Whether its keeper ran: before that nothing can have been ordered."""
        return self.containers.get(names.KEEPER, Container()).state != "waiting"

    @property
    def running(self) -> list[str]:
        """Its running containers, the keeper first."""
        return sorted((name for name, container in self.containers.items() if container.state == "running"), key=lambda name: (name != names.KEEPER, name))


def seen(body: Mapping[str, Any]) -> Seen:
    """What counts of a Pod object."""
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    disrupted, scheduled = conditions.get("DisruptionTarget", {}), conditions.get("PodScheduled", {})
    changes = [condition.get("lastTransitionTime") or "" for condition in conditions.values()]
    return Seen(
        metadata["uid"],
        metadata["name"],
        metadata["labels"].get(names.JOB, ""),
        max(metadata["creationTimestamp"], *changes, ""),
        status.get("phase", "Pending"),
        status.get("reason", ""),
        status.get("message", ""),
        (disrupted.get("message") or disrupted.get("reason", "")) if disrupted.get("status") == "True" else "",
        (scheduled.get("message") or scheduled.get("reason", "")) if scheduled.get("status") == "False" else "",
        going="deletionTimestamp" in metadata,
        containers=dict(_containers(status)),
        images={container["name"]: container["image"] for container in body["spec"]["containers"]},
    )


def _made_by_its_job(body: Mapping[str, Any]) -> bool:
    """Whether the Job made it that its labels name: anybody who may make pods may give them our labels."""
    metadata = body["metadata"]
    owners = metadata.get("ownerReferences") or ()
    return any(owner["kind"] == "Job" and owner.get("controller") and owner["name"] == metadata["labels"].get(names.POD) for owner in owners)


def _containers(status: Mapping[str, Any]) -> Iterable[tuple[str, Container]]:
    for found in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        for state, told in (found.get("state") or {}).items():
            yield found["name"], Container(state, told.get("reason", ""), told.get("message", ""), told.get("exitCode"))


class Pods:
    """By name, as names.pod makes it. `changed` is called with a job's id, or with None where anything may have changed unseen."""

    def __init__(self, api: Api, changed: Callable[[str | None], None]) -> None:
        self._api, self._changed = api, changed
        self._pods: dict[str, Seen] = {}
        self._deleted: OrderedDict[str, Seen] = OrderedDict()

    def of(self, pod: str) -> Seen | None:
        """None: it was never told of."""
        return self._pods.get(pod) or self._deleted.get(pod)

    async def listen(self, instance: str, namespaces: Sequence[str | None], ready: asyncio.Event) -> None:
        """For ever; `ready` once each namespace is watched."""
        waiting = set(namespaces)

        def listed(namespace: str | None) -> None:
            waiting.discard(namespace)
            if not waiting:
                ready.set()

        tasks = [asyncio.create_task(self._listen(instance, namespace, listed)) for namespace in namespaces]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end(*tasks)

    async def _listen(self, instance: str, namespace: str | None, listed: Callable[[str | None], None]) -> None:
        path, mine = names.pods(namespace), {"labelSelector": f"{names.INSTANCE}={instance}"}
        while True:
            try:
                found = await self._api.get(f"{path}?labelSelector={names.INSTANCE}%3D{instance}")
                self._listed(namespace, found["items"] or ())
                version = found["metadata"]["resourceVersion"]
                async with aclosing(self._api.watch(path, {**mine, "resourceVersion": version, "timeoutSeconds": _RENEWED})) as events:
                    async for event in events:
                        self._heard(event) if event else listed(namespace)
            except Expired:
                log.debug("the watch of pods has expired")
            except Exception as error:  # noqa: BLE001 (a watch that ends leaves everything standing still)
                log.warning("the watch of pods failed; again in a second: %s", error if isinstance(error, Unavailable) else repr(error))
                await asyncio.sleep(_PAUSE)

    def _listed(self, namespace: str | None, bodies: Sequence[Mapping[str, Any]]) -> None:
        """All there are. The oldest of those that one Job had is the one that counts."""
        listed: set[str] = set()
        for body in sorted(filter(_made_by_its_job, bodies), key=lambda body: str(body["metadata"]["creationTimestamp"])):
            listed.add(self._told(body))
        for pod in [pod for pod in self._pods if pod not in listed and namespace in (None, names.parts(pod)[0])]:
            self._gone(pod, self._pods[pod])
        self._changed(None)

    def _heard(self, event: Mapping[str, Any]) -> None:
        body = event["object"]
        if event["type"] == "BOOKMARK" or not _made_by_its_job(body):
            return
        pod = self._told(body)
        known = self._pods.get(pod)
        if event["type"] == "DELETED" and known is not None and known.uid == body["metadata"]["uid"]:
            self._gone(pod, known)
        self._changed(body["metadata"]["labels"].get(names.JOB))

    def _told(self, body: Mapping[str, Any]) -> str:
        """Its name. Another Pod of the same Job than the first does not count: nothing is ever ordered in it."""
        pod, uid = names.pod_of(body["metadata"], body["metadata"]["labels"]), body["metadata"]["uid"]
        known = self.of(pod)
        if known is None:
            self._pods[pod] = seen(body)
        elif known.uid == uid and not known.deleted:
            now = seen(body)
            self._pods[pod] = replace(now, since=known.since) if now.changed_at == known.changed_at else now
        return pod

    def _gone(self, pod: str, last: Seen) -> None:
        del self._pods[pod]
        self._deleted[pod] = replace(last, deleted=True)
        while len(self._deleted) > _REMEMBERED:
            self._deleted.popitem(last=False)
