"""The views of all jobs that are worked on: the engine's events keep them up to date, and each change wakes its job."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Collection
from typing import Any

from dray.backends.docker import names
from dray.backends.docker.engine import Engine
from dray.backends.docker.view import View
from dray.errors import Unavailable
from dray.record import Job

log = logging.getLogger(__name__)
_DOUBT_EVERY = 10.0  # seconds
_EVENTS = ["die", "oom", "destroy"]
_REMEMBERED = 100


class Views:
    """By job."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._views: dict[str, View] = {}
        self._gone: deque[str] = deque(maxlen=_REMEMBERED)  # pods that were wholly removed here
        self._woken: asyncio.Queue[str | None] = asyncio.Queue()

    @property
    def pods(self) -> Collection[str]:
        return {view.pod for view in self._views.values()}

    def of(self, job: Job) -> View | None:
        """None: nothing counts that was made for the job. What the record names goes over what was opened here but not recorded."""
        view = self._views.get(job.id)
        if job.pod is not None and (view is None or view.pod != job.pod):
            view = self.add(job.id, View(job.pod))
        return view

    def get(self, job_id: str) -> View | None:
        """None: the job is not worked on here, or no longer."""
        return self._views.get(job_id)

    def opened(self, job: Job) -> View:
        view = self.of(job)
        if view is None:
            raise Unavailable(f"engine: job {job.id} has no pod")
        return view

    def surely_gone(self, job: Job) -> bool:
        return job.id not in self._views and job.pod in self._gone

    def add(self, job_id: str, view: View) -> View:
        self._views[job_id] = view
        return view

    def drop(self, job_id: str, gone: bool = False) -> View | None:
        """Forget the view; `gone`: all of its pod was removed."""
        view = self._views.pop(job_id, None)
        if view is not None and gone:
            self._gone.append(view.pod)
        return view

    async def hang_up(self) -> None:
        for view in self._views.values():
            await view.hang_up()

    # --- waking

    def wake(self, job_id: str) -> None:
        self._woken.put_nowait(job_id)

    async def wakes(self) -> AsyncIterator[str | None]:
        while True:
            yield await self._woken.get()

    async def doubt(self) -> None:
        """Now and then ask the engine anew about everything: an event may have been missed, or a container forgotten."""
        while True:
            await asyncio.sleep(_DOUBT_EVERY)
            for job_id, view in self._views.items():
                view.doubted = True
                view.stale()
                self.wake(job_id)

    async def listen(self, instance: str) -> None:
        """The engine's events, for ever; after a gap every view is stale."""
        mine = [f"{names.INSTANCE}={instance}"]
        while True:
            try:
                async for event in self._engine.events(type=["container"], label=mine, event=_EVENTS):
                    self._heard(event)
            except Unavailable as error:
                log.warning("%s; listening again in a second", error)
                await asyncio.sleep(1)

    def _heard(self, event: dict[str, Any]) -> None:
        """{}: listening has begun, and what came before it went unheard."""
        if not event:
            for view in self._views.values():
                view.stale()
            self._woken.put_nowait(None)
            return
        pod = event["Actor"]["Attributes"].get(names.POD)
        for job_id, view in self._views.items():
            if view.pod == pod and _told(view, event):
                self.wake(job_id)


def _told(view: View, event: dict[str, Any]) -> bool:
    """Whether the event changes what is known of the pod."""
    container = event["Actor"]["ID"]
    match event["Action"]:
        case "oom":
            view.oomed.add(container)
        case "die":
            view.died[container] = int(event["Actor"]["Attributes"]["exitCode"])
        case _:
            return view.forget(container)
    return True
