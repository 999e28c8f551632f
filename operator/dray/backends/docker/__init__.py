"""The Backend on one Docker engine.

For each job that is worked on a `View` remembers what the engine and the agent said, so that a pass costs no call when
nothing changed: the engine's events, the agent's notice and this backend's own calls keep it up to date.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress

from dray import runner
from dray.backends import Claims, Launching
from dray.backends.agent import Agent
from dray.backends.docker import names
from dray.backends.docker.boxes import Boxes
from dray.backends.docker.engine import Engine, Missing
from dray.backends.docker.images import Found, Images
from dray.backends.docker.line import Multiplexed
from dray.backends.docker.pool import Pool
from dray.backends.docker.sandbox import NETWORK, Sandboxes
from dray.backends.docker.view import Container, View, listed, look
from dray.backends.docker.views import Views
from dray.backends.volume import ByAgent
from dray.errors import Unavailable
from dray.pod import Fault, Key, Pod, Shape, Stage
from dray.reason import Reason
from dray.record import Job
from dray.settings import Settings
from dray.spec import JobSpec
from dray.tasks import Background, end

log = logging.getLogger(__name__)
_STARTS = 4  # at once: more are slower together, and the step whose turn comes first is not to wait for them
_REMOVALS = 4  # at once, so that no box that is to be started waits for many
_SOON = 2.0  # seconds


class DockerBackend(ByAgent):
    """See `dray.backends.Backend`."""

    resolves = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = Engine()
        self._images = Images(self._engine)
        self._views = Views(self._engine)
        self._starting = asyncio.Semaphore(_STARTS)
        self._removing = asyncio.Semaphore(_REMOVALS)
        self._background = Background()

    async def start(self, instance: str, operator: str) -> str:
        self._instance, self._operator = instance, operator
        self._sandboxes = Sandboxes(self._engine, instance, await asyncio.to_thread(runner.binary))
        self._boxes = Boxes(self._engine, self._sandboxes, self._settings)
        await self._sandboxes.prepare()
        engine = await self._identity()
        if not self._background:
            self._pool = Pool(self._engine, self._sandboxes, operator, self._settings.sandboxes)
            for work in (self._views.listen(instance), self._views.doubt(), self._images.listen(), self._pool.run()):
                self._background.begin(work)
        return engine

    async def _identity(self) -> str:
        """The engine's name: a label of a volume of its own, which stays as it was first made. Docker's own ID is the host's: two engines may have one."""
        wanted = {"Name": names.IDENTITY, "Labels": {names.IDENTITY: secrets.token_hex(8)}}
        await self._engine.must("POST", "/volumes/create", wanted)
        return str((await self._engine.must("GET", f"/volumes/{names.IDENTITY}"))["Labels"][names.IDENTITY])

    async def stop(self) -> None:
        started = bool(self._background)
        await end(*self._background)
        await self._views.hang_up()
        if started:
            await self._pool.stop()
        self._engine.close()

    async def ping(self) -> None:
        await self._engine.must("HEAD", "/_ping")

    # --- looking

    async def look(self, job: Job) -> Pod:
        view = None if self._views.surely_gone(job) else self._views.of(job)
        if view is None:
            return Pod()
        view.reap()
        sandbox = (await listed(self._engine, view)).get(None)
        if sandbox is not None and sandbox.stage is Stage.RUNNING:
            try:
                return await look(self._engine, view, await self._agent_of(job, view))
            except Unavailable:
                view.stale()  # the sandbox may be going
                raise
        await view.hang_up()
        pod = await look(self._engine, view, None)
        if await self._has_volume(view.pod):
            return pod
        self._views.drop(job.id)
        return Pod(Shape.ABSENT, pod.boxes)

    async def _agent_of(self, job: Job, view: View) -> Agent:
        if view.agent is None or not view.agent.alive:
            view.agent = Agent(Multiplexed(await self._engine.execute(names.sandbox(view.pod), list(runner.AGENT))), lambda: self._views.wake(job.id))
        return view.agent

    async def _has_volume(self, pod: str) -> bool:
        try:
            await self._engine.ask("GET", f"/volumes/{pod}")
        except Missing:
            return False
        return True

    # --- doing

    async def open(self, job: Job) -> str:
        view, warm = self._views.of(job), None
        if view is None and job.spec.network == NETWORK:
            warm = self._pool.take()
        if warm is not None:
            warm.agent.changed = lambda: self._views.wake(job.id)
            self._views.add(job.id, View(warm.pod, {None: Container(warm.sandbox, Stage.RUNNING, NETWORK)}, agent=warm.agent))
            return warm.pod
        if view is None:
            view = self._views.add(job.id, View(names.pod(job.id), {}))
        await view.hang_up()
        try:
            with self._pool.held():
                made = await self._sandboxes.make(view.pod, names.of_pod(self._instance, view.pod, job.id), job.spec.network)
        except BaseException:
            view.stale()
            raise
        view.learn(None, Container(made.id, Stage.RUNNING, made.network))
        if made.line is not None:
            view.agent = Agent(Multiplexed(made.line), lambda: self._views.wake(job.id))
        return view.pod

    async def pin(self, spec: JobSpec) -> tuple[str, ...]:
        return await self._images.pin(spec)

    async def pull(self, job: Job, step: int, early: bool) -> None:
        view, key, source = self._views.opened(job), (step, job.steps[step].attempt), job.image(step)
        refresh = job.spec.steps[step].refresh and not job.pins
        view.images[key] = None if refresh else await self._images.find(source)
        if view.images[key] is None:
            self._background.begin(self._pull(job, key, refresh, early))

    async def _pull(self, job: Job, key: Key, refresh: bool, early: bool) -> None:
        found: Found | Fault
        try:
            found = await self._images.pull(job.image(key[0]), refresh)
        except Unavailable as error:
            found = Fault(Reason.IMAGE_PULL_FAILED, str(error), early=True)
        if isinstance(found, Fault) and early:
            found = Fault(found.reason, found.message, early=True)
        view = self._views.get(job.id)
        if view is not None:
            view.images[key] = found
            self._views.wake(job.id)

    async def launch(self, job: Job, step: int, given: Launching) -> None:
        """Begun here; it goes on in the background, so that the next step's box can be made beside it. `look` tells how it went."""
        view, key = self._views.opened(job), (step, job.steps[step].attempt)
        if key not in view.launching:
            view.launching[key] = self._background.begin(self._launch(view, job, key, given))
            view.launching[key].add_done_callback(lambda _: self._views.wake(job.id))

    async def _launch(self, view: View, job: Job, key: Key, given: Launching) -> None:
        with self._pool.held():
            async with self._starting:
                await self._boxes.launch(view, job, key, given)

    async def remove(self, job: Job, key: Key) -> None:
        view = self._views.opened(job)
        if key in view.launching:
            await asyncio.wait([view.launching[key]])
        box = (await listed(self._engine, view)).get(key)
        if box is None:
            return
        assert view.containers is not None  # just listed
        if box.stage is Stage.ENDED and view.traces.get(key, runner.Traces()).claimed_at is not None:
            del view.containers[key]  # its name is never needed again, so nobody waits for it to go
            view.going[box.id] = self._background.begin(self._remove_soon(view, box.id))
            return
        try:
            await self._engine.remove(box.id)
        finally:
            view.stale()

    async def _remove_soon(self, view: View, container: str) -> None:
        """Not at once: the engine has the next steps to start."""
        with suppress(TimeoutError):
            await asyncio.wait_for(view.closing.wait(), _SOON)
        await self._remove(container)

    async def _remove(self, container: str) -> None:
        async with self._removing:
            await self._engine.remove(container)

    async def read_log(self, job: Job, key: Key, offset: int) -> bytes:
        return await self._agent(job).read(runner.log_file(*key), offset, runner.MAX_READ)

    async def read_output(self, job: Job, step: int) -> AsyncIterator[bytes]:
        agent, name, offset = self._agent(job), runner.output_file(step, job.steps[step].attempt), 0
        while block := await agent.read(name, offset, runner.MAX_READ):
            offset += len(block)
            yield block

    async def close(self, job: Job) -> None:
        view = self._views.of(job)
        if view is None:
            return
        view.closing.set()
        await asyncio.gather(*view.launching.values(), *view.going.values(), return_exceptions=True)
        await view.hang_up()
        try:
            await asyncio.gather(*(self._remove(container.id) for container in (await listed(self._engine, view)).values()))
            await self._engine.remove_volume(view.pod)
        except Unavailable:
            view.stale()  # one that is not known may be using the volume
            raise
        self._views.drop(job.id, gone=True)

    async def leave(self, job_id: str) -> None:
        view = self._views.drop(job_id)
        if view is not None:
            await view.hang_up()

    async def sweep(self, claims: Callable[[], Awaitable[Claims]]) -> None:
        mine = {"label": [f"{names.INSTANCE}={self._instance}"]}
        containers = await self._engine.must("GET", "/containers/json", all=True, filters=mine)
        volumes = (await self._engine.must("GET", "/volumes", filters=mine))["Volumes"] or []
        claimed = await claims()
        pods = {pod or names.pod(job_id) for job_id, pod in claimed.jobs.items()}
        left = [summary["Id"] for summary in containers if not self._claimed(summary["Labels"], pods, claimed.operators)]
        orphaned = [volume["Name"] for volume in volumes if not self._claimed(volume["Labels"], pods, claimed.operators)]
        await asyncio.gather(*(self._engine.remove(container) for container in left))
        await asyncio.gather(*(self._engine.remove_volume(name) for name in orphaned))
        if left or orphaned:
            log.info("swept %d containers and %d volumes that a crash left", len(left), len(orphaned))

    def _claimed(self, labels: Mapping[str, str], pods: Collection[str], operators: Collection[str]) -> bool:
        """By an active job; or made ahead, and not yet known to be a job's, by this operator or another."""
        pod, operator = labels.get(names.POD), labels.get(names.OPERATOR)
        if operator == self._operator and (pod in self._pool.pods or pod in self._views.pods):
            return True
        return pod in pods or (operator != self._operator and operator in operators)

    def wakes(self) -> AsyncIterator[str | None]:
        return self._views.wakes()

    def _traces(self, job: Job) -> Mapping[Key, runner.Traces]:
        view = self._views.get(job.id)
        return view.traces if view else {}

    def _agent(self, job: Job) -> Agent:
        agent = self._views.opened(job).agent
        if agent is None:
            raise Unavailable(f"engine: the sandbox of job {job.id} is shut")
        return agent
