"""What a job's images are, by their registries: for its pod, which is made at once, and for its orders, which may wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from dray import runner
from dray.backends.kubernetes import logins, names
from dray.backends.kubernetes.api import Api
from dray.backends.kubernetes.logins import Logins
from dray.backends.kubernetes.registry import ImageConfig, Images
from dray.cluster import Absent, Refused
from dray.pod import Fault
from dray.reason import Reason
from dray.record import FINAL, Job
from dray.settings import Settings
from dray.spec import JobSpec, Kubernetes

log = logging.getLogger(__name__)
_WAIT = 5.0  # seconds that a pod is not made for want of a registry's answer
_PAUSES = (1.0, 2.0)  # seconds between one try and the next
_ARCHITECTURE = "kubernetes.io/arch"  # a node's label


class Sources:
    """The images that jobs name, with the logins that their pods have."""

    def __init__(self, api: Api, settings: Settings) -> None:
        """Raises BadSetting."""
        self._api, self._settings = api, settings
        self._images = Images(settings)

    async def close(self) -> None:
        await self._images.close()

    async def had(self, job: Job, namespace: str) -> dict[int, ImageConfig]:
        """By step, those that are told in time. What is not, the pod is made without. Raises Unavailable where the cluster does not answer."""
        asked = job.spec.kubernetes or Kubernetes()
        logins = await self._logins(asked, namespace)
        wanted = [step for step, state in enumerate(job.steps) if state.phase not in FINAL]
        asking = {step: asyncio.create_task(self._images.config(job.image(step), logins, _architecture(asked))) for step in wanted}
        await asyncio.wait(asking.values(), timeout=_WAIT)
        found = {}
        for step, task in asking.items():
            if not task.done():
                task.cancel()
            elif task.exception() is None and isinstance(result := task.result(), ImageConfig):
                found[step] = result
        return found

    async def find(self, job: Job, image: str, namespace: str) -> ImageConfig | Fault:
        """As of now, where the image is named by a tag. Raises Unavailable where the cluster does not answer."""
        asked, pauses = job.spec.kubernetes or Kubernetes(), list(_PAUSES)
        while True:
            found = await self._images.config(image, await self._logins(asked, namespace), _architecture(asked))
            if not (isinstance(found, Fault) and found.reason is Reason.IMAGE_PULL_FAILED and pauses):
                return found
            await asyncio.sleep(pauses.pop(0))

    async def pin(self, spec: JobSpec) -> tuple[str, ...]:
        asked = spec.kubernetes or Kubernetes()
        namespace = asked.namespace or self._settings.job_namespace or self._api.namespace
        return await self._images.pin(spec, await self._logins(asked, namespace), _architecture(asked))

    async def _logins(self, asked: Kubernetes, namespace: str) -> Logins:
        """Those of the pull secrets that this operator may read."""
        account = None if asked.imagePullSecrets else await self._read(names.account(namespace, asked.serviceAccount or "default"))
        wanted = logins.names(asked.imagePullSecrets, account)
        return logins.from_secrets(_present([await self._read(names.secrets(namespace, name)) for name in wanted]))

    async def _read(self, path: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._api.get(path)
        except (Absent, Refused) as error:
            log.debug("%s: %s", path, error)
            return None
        return found


def _present(found: Iterable[dict[str, Any] | None]) -> list[dict[str, Any]]:
    return [each for each in found if each is not None]


def _architecture(asked: Kubernetes) -> str:
    """Of the nodes that the job asks for; else as this machine's, which is most likely one of them."""
    return asked.nodeSelector.get(_ARCHITECTURE) or runner.architecture()
