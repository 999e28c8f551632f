"""Images as their registries have them: what they run when a step names no command, and the digest that a tag means now.

Nothing is downloaded but a manifest and a configuration, a few KiB each. What was found by digest is remembered, for the
login that found it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass

from dray.backends.kubernetes import manifest, reference
from dray.backends.kubernetes.distribution import Distribution, NoImage
from dray.backends.kubernetes.fetch import Failed, Fetch
from dray.backends.kubernetes.logins import Login, Logins, from_config
from dray.backends.kubernetes.reference import Reference
from dray.errors import FieldError, Invalid
from dray.pod import Fault
from dray.reason import Reason
from dray.settings import Settings
from dray.spec import JobSpec

log = logging.getLogger(__name__)
_TRIES = 3
_FIRST_PAUSE = 1.0  # seconds before the second try; doubled for each one after
_LONGEST = 120  # seconds for all tries
_MOST_NESTED = 3  # indexes in one another
_MOST_KNOWN, _LARGEST_KNOWN = 1000, 32 * 2**10  # configurations, and bytes of one

_Known = tuple[str, str, str, Login | None]


@dataclass(frozen=True)
class ImageConfig:
    """An image. `pinned`: a reference that only it can ever have, by the digest that its tag means."""

    pinned: str
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    user: str = ""


class Images:
    """The images of all registries, for nodes that run Linux."""

    def __init__(self, settings: Settings) -> None:
        """Raises BadSetting where the CA file cannot be used."""
        self._fetch = Fetch(settings.registry_ca)
        self._registries = Distribution(self._fetch, settings.plain_registries)
        self._asking: dict[tuple[str, Logins, str], asyncio.Task[ImageConfig | Fault]] = {}
        self._known: OrderedDict[_Known, manifest.Config] = OrderedDict()

    async def close(self) -> None:
        """Let go of the connections."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._fetch.close()

    async def config(self, source: str, logins: Logins, architecture: str) -> ImageConfig | Fault:
        """The image that the reference means at this moment; a fault when it cannot be had, naming it.

        `logins`: of the job (`logins.from_secrets`); the operator's own come after them. `architecture`: of the nodes that
        may run it, as their label kubernetes.io/arch says. What is known by digest is not asked for again; a tag costs a
        HEAD. Calls for the same at the same time are one.
        """
        key = (source, logins, architecture)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._config(source, logins, architecture))
            task.add_done_callback(lambda _: self._asking.pop(key))
        return await asyncio.shield(task)

    async def pin(self, spec: JobSpec, logins: Logins, architecture: str) -> tuple[str, ...]:
        """By step, its image as `repository@sha256:…`. Raises Invalid, naming the steps without one."""
        had = await asyncio.gather(*(self.config(step.source, logins, architecture) for step in spec.steps))
        faults = [FieldError(f"steps[{step}].source", found.message) for step, found in enumerate(had) if isinstance(found, Fault)]
        if faults:
            raise Invalid(faults)
        return tuple(found.pinned for found in had if isinstance(found, ImageConfig))

    async def _config(self, source: str, logins: Logins, architecture: str) -> ImageConfig | Fault:
        image = reference.parse(source)
        if image.fault:
            return Fault(Reason.IMAGE_NOT_FOUND, f"image {source}: {image.fault}")
        try:
            async with asyncio.timeout(_LONGEST):
                return await self._tried(image, logins, architecture)
        except NoImage as error:
            return Fault(Reason.IMAGE_NOT_FOUND, f"image {source}: {error}")
        except Failed as error:
            return Fault(Reason.IMAGE_PULL_FAILED, f"image {source}: {error}")
        except TimeoutError:
            return Fault(Reason.IMAGE_PULL_FAILED, f"image {source}: {image.host} does not answer in time")

    async def _tried(self, image: Reference, logins: Logins, architecture: str) -> ImageConfig:
        pause = _FIRST_PAUSE
        for _ in range(_TRIES - 1):
            try:
                return await self._by_any(image, logins, architecture)
            except Failed as error:
                log.warning("asking for the image %s failed, trying again in %.0f s: %s", image.name, pause, error)
            await asyncio.sleep(pause)
            pause *= 2
        return await self._by_any(image, logins, architecture)

    async def _by_any(self, image: Reference, logins: Logins, architecture: str) -> ImageConfig:
        """By the first login that the registry takes."""
        try:
            own = await asyncio.to_thread(from_config, image)
        except ValueError as error:
            raise Failed(str(error)) from None
        refusals = []
        for login in (*logins.of(image), *own) or (None,):
            try:
                return await self._by(image, login, architecture)
            except NoImage as error:
                refusals.append(error)
        raise refusals[0]

    async def _by(self, image: Reference, login: Login | None, architecture: str) -> ImageConfig:
        digest = image.digest or await self._registries.digest(image, login)
        key = (image.name, digest, architecture, login)
        found = self._known.get(key)
        if found is None:
            found = await self._read(image, digest, architecture, login)
            if found.size <= _LARGEST_KNOWN:
                self._known[key] = found
                if len(self._known) > _MOST_KNOWN:
                    self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return ImageConfig(image.pinned(digest), found.entrypoint, found.args, found.user)

    async def _read(self, image: Reference, digest: str, architecture: str, login: Login | None) -> manifest.Config:
        for _ in range(_MOST_NESTED):
            held = manifest.parse(await self._registries.manifest(image, digest, login))
            if held.config is not None:
                return manifest.parse_config(await self._registries.blob(image, held.config.digest, login))
            digest = held.choose(architecture)
        raise NoImage("indexes lead to further indexes")
