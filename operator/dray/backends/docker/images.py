"""Images of steps: looked up, pulled when absent, refreshed on request, pinned; each pull is told of in the operator's log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from docker.utils import parse_repository_tag

from dray import metrics
from dray.backends.docker.engine import Engine, Refused
from dray.errors import FieldError, Invalid, Unavailable
from dray.pod import Fault
from dray.reason import Reason
from dray.spec import JobSpec

log = logging.getLogger(__name__)
_TRIES = 3
_MOST_KNOWN = 1000
_FIRST_PAUSE = 1.0  # seconds before the second try; doubled for each one after


@dataclass(frozen=True)
class Found:
    """An image on the engine. `entrypoint`, `args`: what it runs; `digests`: the names under which registries have it."""

    id: str
    entrypoint: tuple[str, ...]
    args: tuple[str, ...]
    digests: tuple[str, ...]


class PullFailed(Exception):
    """What the registry or the way to it had against a pull."""


class Images:
    """The images of one engine. What was found is remembered while the engine's events say that nothing changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pulling: dict[str, asyncio.Lock] = {}
        self._known: dict[str, Found] | None = None  # None: nobody would tell of a change

    async def listen(self) -> None:
        """Hear of changes, for ever."""
        while True:
            try:
                async for _ in self._engine.events(type=["image"]):
                    self._known = {}
            except Unavailable as error:
                self._known = None
                log.warning("%s; listening again in a second", error)
                await asyncio.sleep(1)

    async def find(self, source: str) -> Found | None:
        """The image as the engine has it."""
        known = self._known
        if known is not None and source in known:
            return known[source]
        found = await self._find_now(source)
        if found is not None and known is not None and len(known) < _MOST_KNOWN:
            known[source] = found
        return found

    async def _find_now(self, source: str) -> Found | None:
        try:
            found = await self._engine.ask("GET", f"/images/{source}/json")
        except Refused as error:
            if not _no_such(error):
                raise
            return None
        config = found.get("Config") or {}
        return Found(found["Id"], tuple(config.get("Entrypoint") or ()), tuple(config.get("Cmd") or ()), tuple(found.get("RepoDigests") or ()))

    async def pull(self, source: str, refresh: bool) -> Found | Fault:
        """The image, pulled where it is absent or to be refreshed; a fault when it cannot be had."""
        lock = self._pulling.setdefault(source, asyncio.Lock())
        try:
            async with lock:
                before = await self.find(source)
                if before is not None and not refresh:
                    return before
                fault = await self._pull(source)
                found = await self._find_now(source)
        finally:
            if not lock.locked():
                self._pulling.pop(source, None)
        if fault is not None or found is None:
            return fault or Fault(Reason.IMAGE_NOT_FOUND, f"image {source} was pulled but is not there")
        if before is not None and before.id != found.id:
            await self._remove(before.id)
        return found

    async def pin(self, spec: JobSpec) -> tuple[str, ...]:
        """By step, the digest under which its registry has the image, or the engine's id of one that was only built here."""
        had = await asyncio.gather(*(self.pull(step.source, step.refresh) for step in spec.steps))
        faults = [FieldError(f"steps[{step}].source", found.message) for step, found in enumerate(had) if isinstance(found, Fault)]
        if faults:
            raise Invalid(faults)
        return tuple(_pinned(step.source, found) for step, found in zip(spec.steps, had, strict=True) if isinstance(found, Found))

    async def _pull(self, source: str) -> Fault | None:
        pause = _FIRST_PAUSE
        for tries_left in reversed(range(_TRIES)):
            try:
                await self._engine.thread(self._pull_once, source)
                return None
            except (PullFailed, Unavailable, Refused) as error:
                if isinstance(error, Refused) and _no_such(error):
                    return Fault(Reason.IMAGE_NOT_FOUND, f"image {source}: {error}")
                if not tries_left:
                    return Fault(Reason.IMAGE_PULL_FAILED, f"image {source}: {error}")
                log.warning("pulling %s failed, trying again in %.0f s: %s", source, pause, error)
            await asyncio.sleep(pause)
            pause *= 2
        return None

    @metrics.a_pull()
    def _pull_once(self, source: str) -> None:
        """Runs in a thread. Logins are read anew from config.json each time, so that a `docker login` counts at once."""
        repository, tag = parse_repository_tag(source)
        self._engine.pulls.reload_config()
        log.info("pulling %s", source)
        for line in _milestones(self._engine.pulls.pull(repository, tag or "latest", stream=True, decode=True)):
            log.info("pulling %s: %s", source, line)

    async def _remove(self, image_id: str) -> None:
        """The image that a refresh replaced; one still in use stays, as in the original."""
        try:
            await self._engine.ask("DELETE", f"/images/{image_id}")
            log.info("removed the image %s that a refresh replaced", image_id)
        except Refused as error:
            log.info("kept the image %s that a refresh replaced: %s", image_id, error)


def _no_such(error: Refused) -> bool:
    """There is no such image, or none can be: engines differ in what they take for a reference, which is then a 400."""
    return error.status in (400, 404)


def _pinned(source: str, found: Found) -> str:
    repository = parse_repository_tag(source)[0].removeprefix("docker.io/").removeprefix("library/")
    own = [digest for digest in found.digests if digest.partition("@")[0] == repository]
    return (*own, *found.digests, found.id)[0]


def _milestones(progress: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The lines of a pull worth a log line. Raises PullFailed for an error that came after the pull began."""
    for event in progress:
        if "error" in event:
            raise PullFailed(event["error"])
        status = event.get("status", "")
        if status.startswith(("Pull complete", "Already exists", "Digest:", "Status:")):
            yield f"{event['id']}: {status}" if event.get("id") else status
