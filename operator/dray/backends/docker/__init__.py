"""The Backend on one Docker engine.

For each job that is worked on a `_View` remembers what the engine and the agent said, so that a pass costs no call when
nothing changed: the engine's events, the agent's notice and this backend's own calls each mark the part they make stale.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from docker.errors import APIError, NotFound

from dray import runner
from dray.backends.docker import names
from dray.backends.docker.agent import Agent
from dray.backends.docker.engine import NO_LOG, Engine, Faltering, status_of
from dray.backends.docker.images import Found, Images
from dray.backends.docker.sandbox import Sandboxes, empty_file
from dray.errors import Unavailable
from dray.settings import Settings
from dray.state import Box, Fault, Image, Job, Pod, Reason, Shape, Stage
from dray.tasks import end

log = logging.getLogger(__name__)
_STAGES = {"created": Stage.MADE, "running": Stage.RUNNING, "paused": Stage.RUNNING, "restarting": Stage.RUNNING}  # any other: ended
_NEVER = "0001-01-02"  # a time of the engine's that is none
_DOUBT_EVERY = 10.0  # seconds
_EVENTS = ["die", "oom", "destroy"]
_STARTS = 5  # refusals, with back-off between them some three seconds, before a start is given up


@dataclass(frozen=True)
class _Container:
    """What the engine says of a box or a sandbox."""

    id: str
    stage: Stage
    network: str
    code: int | None = None
    oom: bool = False


@dataclass
class _View:
    """What is known of one job's pod. `containers` by (step, attempt), the sandbox under None; None as a whole: ask again.

    `died` and `oomed`: what the engine's events said of containers, by id. A list that is asked for just after an event
    may still show the container running (Docker 20.10), so the events' word goes over the list's.
    """

    containers: dict[tuple[int, int] | None, _Container] | None = None
    died: dict[str, int] = field(default_factory=dict)
    oomed: set[str] = field(default_factory=set)
    doubted: bool = True  # inspect what is listed as running too
    asked: int = 0  # counts what made `containers` stale, so that a list asked for before it is not kept
    agent: Agent | None = None
    traces: dict[tuple[int, int], runner.Traces] = field(default_factory=dict)
    refusals: Counter[int] = field(default_factory=Counter)  # by step: how often a start was refused
    images: dict[int, Found | Fault | None] = field(default_factory=dict)  # None: being pulled

    def stale(self) -> None:
        self.containers = None
        self.asked += 1

    def told(self, container: _Container) -> _Container:
        """The container, with what the events said of it."""
        if container.stage is Stage.ENDED or container.id not in self.died:
            return container
        return replace(container, stage=Stage.ENDED, code=self.died[container.id], oom=container.id in self.oomed)


class DockerBackend:
    """See `dray.backends.Backend`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = Engine()
        self._images = Images(self._engine)
        self._views: dict[str, _View] = {}
        self._woken: asyncio.Queue[str | None] = asyncio.Queue()
        self._background: set[asyncio.Task[None]] = set()

    async def start(self, instance: str) -> None:
        self._instance = instance
        self._sandboxes = Sandboxes(self._engine, instance, await asyncio.to_thread(runner.binary))
        await self._sandboxes.prepare()
        self._spawn(self._listen())
        self._spawn(self._doubt())

    async def stop(self) -> None:
        await end(*self._background)
        for view in self._views.values():
            if view.agent is not None:
                await view.agent.close()
        self._engine.close()

    async def ping(self) -> None:
        await self._engine.call(self._engine.api.ping)

    # --- looking

    async def look(self, job: Job) -> Pod:
        view = self._views.setdefault(job.id, _View())
        containers = {key: view.told(container) for key, container in (await self._containers(job, view)).items()}
        sandbox = containers.get(None)
        if sandbox is None or sandbox.stage is not Stage.RUNNING:
            await self._hang_up(view)
            shape = Shape.SHUT if job.pod and await self._has_volume(job) else Shape.ABSENT
            return Pod(shape, {key: Box(found.stage, found.code, found.oom) for key, found in containers.items() if key})
        view.traces = runner.traces(await self._listing(job, view))
        keys = {key for key in (*containers, *view.traces) if key}
        boxes = {key: _box(containers.get(key), view.traces.get(key, runner.Traces()), sandbox) for key in keys}
        return Pod(Shape.OPEN, boxes, {step: _image(found) for step, found in view.images.items()})

    async def _containers(self, job: Job, view: _View) -> dict[tuple[int, int] | None, _Container]:
        if view.containers is not None:
            return view.containers
        asked = view.asked
        found = await self._engine.call(self._engine.api.containers, all=True, filters={"label": f"{names.JOB}={job.id}"})
        doubted, view.doubted = view.doubted, False
        listed = await asyncio.gather(*(self._container(summary, doubted) for summary in found))
        containers = {key: container for key, container in listed if container is not None}
        if asked == view.asked:
            view.containers = containers
        return containers

    async def _container(self, summary: dict[str, Any], doubted: bool) -> tuple[tuple[int, int] | None, _Container | None]:
        key, stage = names.key_of(summary["Labels"]), _STAGES.get(summary["State"], Stage.ENDED)
        network = summary["HostConfig"]["NetworkMode"]
        if stage is Stage.MADE or (stage is Stage.RUNNING and not doubted):
            return key, _Container(summary["Id"], stage, network)
        try:
            state = (await self._engine.call(self._engine.api.inspect_container, summary["Id"]))["State"]
        except NotFound:
            return key, None
        if stage is Stage.RUNNING and state["StartedAt"] > _NEVER:
            return key, _Container(summary["Id"], stage, network)
        code = None if stage is Stage.RUNNING else state["ExitCode"]  # None: killed in the middle of a start, the engine knows no end of it
        return key, _Container(summary["Id"], Stage.ENDED, network, code, state["OOMKilled"])

    async def _listing(self, job: Job, view: _View) -> bytes:
        if view.agent is None or not view.agent.alive:
            try:
                view.agent = await Agent.open(self._engine, names.sandbox(job.id), lambda: self._wake(job.id))
            except APIError as error:
                view.stale()
                raise Unavailable(f"engine: the sandbox of job {job.id} is going: {error.explanation}") from error
        try:
            return await view.agent.look()
        except Unavailable:
            view.stale()  # the sandbox may be gone
            raise

    async def _has_volume(self, job: Job) -> bool:
        try:
            await self._engine.call(self._engine.api.inspect_volume, names.volume(job.id))
        except NotFound:
            return False
        return True

    # --- doing

    async def open(self, job: Job) -> str:
        volume = names.volume(job.id)
        await self._engine.call(self._engine.api.create_volume, volume, labels=names.labels(self._instance, job.id))
        view = self._views.setdefault(job.id, _View())
        await self._hang_up(view)
        await self._sandboxes.make(job.id, volume)
        view.stale()
        return volume

    async def pull(self, job: Job, step: int, early: bool) -> None:
        view, spec = self._views[job.id], job.spec.steps[step]
        found = None if spec.refresh else await self._images.find(spec.source)
        view.images[step] = found
        if found is None:
            self._spawn(self._pull(job, step, early))

    async def _pull(self, job: Job, step: int, early: bool) -> None:
        found: Found | Fault
        try:
            found = await self._images.pull(job.spec.steps[step])
        except Unavailable as error:
            found = Fault(Reason.IMAGE_PULL_FAILED, str(error), early=True)
        if isinstance(found, Fault) and early:
            found = Fault(found.reason, found.message, early=True)
        view = self._views.get(job.id)
        if view is not None:
            view.images[step] = found
            self._wake(job.id)

    async def launch(self, job: Job, step: int) -> None:
        view, key = self._views[job.id], (step, job.steps[step].attempt)
        image, name = view.images.get(step), names.box(job.id, *key)
        if not isinstance(image, Found):
            raise Unavailable(f"the image of step {step} is not ready")
        if not image.command:
            view.images[step] = Fault(Reason.START_FAILED, f"image {job.spec.steps[step].source} has neither entrypoint nor command")
            return
        try:
            await self._create(job, key, image, name)
            output = job.spec.steps[step].output
            if output.startswith("/"):
                if await self._engine.is_folder(name, output):
                    view.images[step] = Fault(Reason.START_FAILED, f"output {output} is a folder in the image")
                    return
                await self._engine.call(self._engine.api.put_archive, name, "/", empty_file(output))
            await self._engine.call(self._engine.api.start, name)
        except (Faltering, APIError) as error:
            view.stale()
            await self._refused(job, view, step, error)
        finally:
            view.stale()

    async def _refused(self, job: Job, view: _View, step: int, error: Faltering | APIError) -> None:
        """A start that the engine would not make: the step's fault when it is refused again and again, with a living sandbox.

        No single answer tells the step's fault from the engine's: Docker answers 500 to a user that the image does not
        have, and 400 to a start that its own end interrupts. 404 and 409: something the step needs has gone.
        """
        sandbox = (await self._containers(job, view)).get(None)
        if sandbox is None or view.told(sandbox).stage is not Stage.RUNNING:
            raise Unavailable(f"engine: the sandbox of job {job.id} died under step {step + 1}") from error
        view.refusals[step] += isinstance(error, Faltering) or status_of(error) == 400
        if view.refusals[step] >= _STARTS:
            view.images[step] = Fault(Reason.START_FAILED, str(error if isinstance(error, Faltering) else error.explanation))
            return
        view.images.pop(step, None)
        raise Unavailable(f"engine: {error}") from error

    async def _create(self, job: Job, key: tuple[int, int], image: Found, name: str) -> None:
        """Created once: named by its attempt, a second one is the first (409)."""
        api, step = self._engine.api, job.spec.steps[key[0]]
        sandbox = (await self._containers(job, self._views[job.id])).get(None)
        if sandbox is None:
            raise Unavailable(f"engine: the sandbox of job {job.id} is gone")
        host_config = api.create_host_config(network_mode=f"container:{sandbox.id}", binds=self._sandboxes.binds(names.volume(job.id)), log_config=NO_LOG)
        command = runner.step_command(*key, step, image.command, self._settings)
        environment = job.spec.environment_of(key[0])
        try:
            await self._engine.call(
                api.create_container,
                image.id,
                name=name,
                entrypoint=command[:1],
                command=command[1:],
                environment=environment,
                labels=names.labels(self._instance, job.id, key),
                host_config=host_config,
                healthcheck={"test": ["NONE"]},
            )
        except APIError as error:
            if status_of(error) != 409:
                raise
            await self._check_joined(name, sandbox)

    async def _check_joined(self, name: str, sandbox: _Container) -> None:
        """A box that an engine, killed in the middle of its creation, holds but may not list: of use only if it joined this sandbox."""
        found = await self._engine.call(self._engine.api.inspect_container, name)
        if found["HostConfig"]["NetworkMode"] != f"container:{sandbox.id}":
            await self._sandboxes.remove(name)
            raise Unavailable(f"engine: box {name} was of another sandbox")

    async def remove(self, job: Job, step: int) -> None:
        await self._sandboxes.remove(names.box(job.id, step, job.steps[step].attempt))
        self._views[job.id].stale()

    async def drop(self, job: Job, step: int) -> None:
        await self._agent(job).drop(runner.output_file(step, job.steps[step].attempt))

    def logs(self, job: Job) -> Mapping[tuple[int, int], int]:
        view = self._views.get(job.id, _View())
        return {key: traces.log for key, traces in view.traces.items() if traces.log is not None}

    async def read_log(self, job: Job, key: tuple[int, int], offset: int) -> bytes:
        return await self._agent(job).read(runner.log_file(*key), offset, runner.MAX_READ)

    async def read_output(self, job: Job, step: int) -> AsyncIterator[bytes]:
        agent, name, offset = self._agent(job), runner.output_file(step, job.steps[step].attempt), 0
        while block := await agent.read(name, offset, runner.MAX_READ):
            offset += len(block)
            yield block

    async def close(self, job: Job) -> None:
        view = self._views.get(job.id, _View())
        await self._hang_up(view)
        await self._remove_all(await self._engine.call(self._engine.api.containers, all=True, filters={"label": f"{names.JOB}={job.id}"}))
        await self._remove_volume(names.volume(job.id))
        self._views.pop(job.id, None)

    async def sweep(self, active: Collection[str]) -> None:
        api, mine = self._engine.api, {"label": f"{names.INSTANCE}={self._instance}"}
        found = await self._engine.call(api.containers, all=True, filters=mine)
        left = [summary for summary in found if summary["Labels"].get(names.JOB, "") not in active]
        await self._remove_all(left)
        volumes = (await self._engine.call(api.volumes, filters=mine))["Volumes"] or []
        orphaned = [volume["Name"] for volume in volumes if volume["Labels"].get(names.JOB, "") not in active]
        for name in orphaned:
            await self._remove_volume(name)
        if left or orphaned:
            log.info("swept %d containers and %d volumes that a crash left", len(left), len(orphaned))

    async def _remove_all(self, summaries: list[dict[str, Any]]) -> None:
        await asyncio.gather(*(self._sandboxes.remove(summary["Id"]) for summary in summaries))

    async def _remove_volume(self, name: str) -> None:
        try:
            await self._engine.call(self._engine.api.remove_volume, name)
        except NotFound:
            return
        except APIError as error:
            raise Unavailable(f"engine: {error.explanation}") from error

    # --- waking

    async def wakes(self) -> AsyncIterator[str | None]:
        while True:
            yield await self._woken.get()

    def _wake(self, job_id: str) -> None:
        self._woken.put_nowait(job_id)

    async def _doubt(self) -> None:
        """Now and then ask the engine anew about everything: an event may have been missed, or a container forgotten."""
        while True:
            await asyncio.sleep(_DOUBT_EVERY)
            for job_id, view in self._views.items():
                view.doubted = True
                view.stale()
                self._wake(job_id)

    async def _listen(self) -> None:
        """The engine's events, for ever; after a gap every view is stale."""
        filters = {"type": ["container"], "label": [f"{names.INSTANCE}={self._instance}"], "event": _EVENTS}
        while True:
            try:
                async for event in self._engine.events(filters):
                    self._heard(event)
            except Unavailable as error:
                log.warning("%s; listening again in a second", error)
                await asyncio.sleep(1)

    def _heard(self, event: dict[str, Any]) -> None:
        """{}: listening has begun, and what came before it went unheard."""
        if not event:
            for each in self._views.values():
                each.stale()
            return self._woken.put_nowait(None)
        container, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
        view = self._views.get(attributes.get(names.JOB, ""))
        if view is None:  # no job's, or none that is worked on here
            return None
        match event["Action"]:
            case "oom":
                view.oomed.add(container)
            case "die":
                view.died[container] = int(attributes["exitCode"])
            case _:
                view.stale()
        return self._wake(attributes[names.JOB])

    def _agent(self, job: Job) -> Agent:
        agent = self._views[job.id].agent
        if agent is None:
            raise Unavailable(f"engine: the sandbox of job {job.id} is shut")
        return agent

    async def _hang_up(self, view: _View) -> None:
        if view.agent is not None:
            agent, view.agent = view.agent, None
            await agent.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _box(container: _Container | None, traces: runner.Traces, sandbox: _Container) -> Box:
    holds = traces.out is not None
    if container is None:
        return Box(Stage.ABSENT, claimed_at=traces.claimed_at, status=traces.status, holds_output=holds)
    cut_off = container.network != f"container:{sandbox.id}"
    return Box(container.stage, container.code, container.oom, traces.claimed_at, traces.status, cut_off, holds)


def _image(found: Found | Fault | None) -> Image | Fault:
    if found is None:
        return Image.PULLING
    return Image.READY if isinstance(found, Found) else found
