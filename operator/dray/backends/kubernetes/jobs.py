"""Job objects: each makes a job's pod, owns its Secret, and takes both with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from dray.backends.kubernetes import names, template
from dray.backends.kubernetes.api import Api
from dray.backends.kubernetes.images import Sources
from dray.backends.kubernetes.registry import ImageConfig
from dray.cluster import Absent, Conflict
from dray.errors import Unavailable
from dray.record import Job
from dray.secrets import NoSecret, Secrets
from dray.settings import Settings
from dray.spec import Kubernetes

_BACKGROUND = {"propagationPolicy": "Background"}


class Made(NamedTuple):
    """`uid`: of the Job object. `new`: it was not there before. `images`: by step, those that were told in time."""

    uid: str
    new: bool
    images: Mapping[int, ImageConfig]


class Jobs:
    """Of one instance. Raises what `dray.cluster.Cluster` raises."""

    def __init__(self, api: Api, sources: Sources, settings: Settings, instance: str, cluster: template.Cluster) -> None:
        self._api, self._sources, self._settings, self._secrets = api, sources, settings, Secrets(settings)
        self._instance, self._cluster = instance, cluster

    async def make(self, job: Job, pod: str) -> Made:
        """The pod's Job, which may be there already."""
        namespace, _ = names.parts(pod)
        images = await self._sources.had(job, namespace)
        given = template.Given(self._settings, self._cluster, job.spec.kubernetes or Kubernetes(), images)
        try:
            made, new = await self._api.create(names.jobs(namespace), template.job(job, pod, self._instance, given)), True
        except Conflict:
            made, new = await self._api.get(names.jobs(*names.parts(pod))), False
            if "deletionTimestamp" in made["metadata"]:
                raise Unavailable(f"Kubernetes: Job {pod} is still being deleted") from None
        return Made(str(made["metadata"]["uid"]), new, images)

    async def lay_secrets(self, job: Job, pod: str, owner: str) -> None:
        """Those of the operator's that the steps name; of one that is not there its step's container will say so. `owner`: the Job's uid."""
        wanted = {variable.secret for step in range(len(job.steps)) for variable in job.spec.environment_of(step).values() if variable.secret}
        values = {}
        for name in wanted:
            with suppress(NoSecret):
                values[name] = await asyncio.to_thread(self._secrets.value, name)
        if wanted:
            with suppress(Conflict):
                await self._api.create(names.secrets(names.parts(pod)[0]), template.secret(job, pod, self._instance, owner, values))

    async def remove(self, pod: str) -> None:
        """What it owns goes with it, as the cluster comes to it. Gone already is fine."""
        with suppress(Absent):
            await self._api.delete(names.jobs(*names.parts(pod)), _BACKGROUND)

    async def all(self, namespaces: Iterable[str | None]) -> list[str]:
        """The pods, as records have their names, of the instance's Jobs; None: of all namespaces."""
        found: list[str] = []
        for namespace in namespaces:
            listed = await self._api.metadata(f"{names.jobs(namespace)}?labelSelector={names.INSTANCE}%3D{self._instance}")
            found += [f"{job['metadata']['namespace']}/{job['metadata']['name']}" for job in listed["items"] or ()]
        return found
