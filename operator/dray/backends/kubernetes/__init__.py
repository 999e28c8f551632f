"""The Backend on a Kubernetes cluster: one Job with one Pod for each of Dray's jobs. docs/kubernetes.md tells of it.

The pod is volume, sandbox and boxes at once: a keeper, in which the agent is executed, and a container for each step,
which waits for its order. What the API server knows of it comes by one watch for all; what lies in its volume, by the agent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from dray import runner
from dray.backends import Claims, Launching
from dray.backends.agent import Agent
from dray.backends.kubernetes import faults, names, template
from dray.backends.kubernetes.api import Api
from dray.backends.kubernetes.images import Sources
from dray.backends.kubernetes.jobs import Jobs
from dray.backends.kubernetes.pods import Pods, Seen
from dray.backends.kubernetes.registry import ImageConfig
from dray.backends.kubernetes.view import View, gone, may_still_come, opened
from dray.backends.volume import ByAgent
from dray.cluster import Absent, Refused, cluster
from dray.errors import BadSetting, Unavailable
from dray.pod import Fault, Image, Key, Pod, Shape
from dray.reason import Reason
from dray.record import Job
from dray.settings import Settings
from dray.spec import JobSpec
from dray.tasks import Background, end

log = logging.getLogger(__name__)
_REMEMBERED = 1000
_POD_RESOURCES = (1, 34)  # the version from which a Pod has resources of its own
_IDENTITY = "/api/v1/namespaces/kube-system"


class KubernetesBackend(ByAgent):
    """See `dray.backends.Backend`."""

    resolves = False

    def __init__(self, settings: Settings) -> None:
        """Raises BadSetting where there is no cluster to be found."""
        self._settings = settings
        self._api = Api(cluster())
        self._sources = Sources(self._api, settings)
        self._woken: asyncio.Queue[str | None] = asyncio.Queue()
        self._pods = Pods(self._api, self._woken.put_nowait)
        self._views: dict[str, View] = {}
        self._closed: deque[str] = deque(maxlen=_REMEMBERED)
        self._background = Background()

    async def start(self, instance: str, operator: str) -> str:  # noqa: ARG002 (nothing is made ahead)
        try:
            found, version = await self._api.get(_IDENTITY), await self._api.get("/version")
        except (Refused, Absent) as error:
            raise BadSetting(f"--backend kubernetes: the cluster's kube-system, which names it, cannot be read: {error}") from None
        self._jobs = Jobs(self._api, self._sources, self._settings, instance, template.Cluster(_version(version) >= _POD_RESOURCES))
        if not self._background:
            ready = asyncio.Event()
            self._background.begin(self._pods.listen(instance, self._namespaces(), ready))
            await ready.wait()
        return str(found["metadata"]["uid"])

    def _namespaces(self) -> Sequence[str | None]:
        """Those that jobs may be in; None: all."""
        if self._settings.kubernetes and not self._settings.namespaces:
            return [None]
        own = self._settings.job_namespace or self._api.namespace
        return sorted({own, *self._settings.namespaces, *self._settings.job_namespaces})

    async def stop(self) -> None:
        await end(*self._background)
        for view in self._views.values():
            await view.hang_up()
        await self._sources.close()
        await self._api.close()

    async def ping(self) -> None:
        await self._api.get("/version")

    # --- looking

    async def look(self, job: Job) -> Pod:
        if job.pod is None or job.pod in self._closed:
            return Pod()
        view, seen = self._view(job), self._pods.of(job.pod)
        why = view.refused or (await self._unseen(view) if seen is None else faults.of_pod(seen))
        if why is not None:
            await view.hang_up()
            return gone(view, job, seen, why)
        if seen is not None and (seen.going or seen.disrupted):  # no attempt more in it
            return Pod(Shape.GOING)
        if seen is None or not seen.running:
            return self._opening(job, view, seen)
        agent = await self._agent_of(job, view, seen)
        listing = await agent.look()
        why = None if runner.orders(listing) else faults.without_runner(seen)
        if why is not None:
            view.orders = set()
            return gone(view, job, seen, why)
        pod, left = opened(view, job, seen, listing), may_still_come(seen)
        if left > 0 and Image.PULLING in pod.images.values():
            view.wake_after(left, partial(self._woken.put_nowait, job.id))
        return pod

    async def _unseen(self, view: View) -> Fault | None:
        """Why there is no pod that the watch has told of; None: its Job has yet to make it."""
        if view.made:
            return None
        try:
            found = await self._api.get(names.jobs(*names.parts(view.pod)))
        except Absent:
            return Fault(Reason.LOST, "the job's pod was deleted")
        ended = {condition["type"] for condition in found.get("status", {}).get("conditions") or () if condition["status"] == "True"}
        if "deletionTimestamp" in found["metadata"] or ended & {"Failed", "FailureTarget", "Complete"}:
            return Fault(Reason.LOST, "the job's pod was deleted")
        view.made = True
        return None

    def _opening(self, job: Job, view: View, seen: Seen | None) -> Pod:
        """Not up yet. A fault once nothing has changed for too long: a node that many pods came to at once takes its time for each."""
        view.unseen_since = view.unseen_since or time.monotonic()
        left = (seen.since if seen else view.unseen_since) + self._settings.pending - time.monotonic()
        if left <= 0:
            why = Fault(Reason.UNSCHEDULABLE, f"the job's pod did not come up, and nothing changed for {self._settings.pending:g} s: {faults.not_up(seen)}")
            return Pod(Shape.ABSENT, gone=why)
        view.wake_after(left + 0.1, partial(self._woken.put_nowait, job.id))
        return Pod(Shape.OPENING)

    async def _agent_of(self, job: Job, view: View, seen: Seen) -> Agent:
        if view.agent is None or not view.agent.alive:
            await view.hang_up()
            line = await self._api.execute(names.parts(view.pod)[0], seen.name, seen.running[0], runner.AGENT)
            view.agent = Agent(line, lambda: self._woken.put_nowait(job.id))
        return view.agent

    # --- doing

    async def open(self, job: Job) -> str:
        namespace = names.namespace(job, self._settings, self._api.namespace)
        if job.pods:
            await self._jobs.remove(names.pod(namespace, job.id, job.pods - 1))
        pod = names.pod(namespace, job.id, job.pods)
        view = self._view_of(job.id, pod)
        try:
            made = await self._jobs.make(job, pod)
            view.images = dict(made.images)
            if made.new:
                view.orders = set()
            await self._jobs.lay_secrets(job, pod, made.uid)
            view.made = True
        except (Refused, Absent) as error:  # what the cluster will never do
            view.refused, view.orders = Fault(Reason.START_FAILED, f"the cluster refuses the job's pod: {error}"), set()
        return pod

    async def pin(self, spec: JobSpec) -> tuple[str, ...]:
        return await self._sources.pin(spec)

    async def pull(self, job: Job, step: int, early: bool) -> None:
        view = self._view(job)
        view.asked[step, job.steps[step].attempt] = early
        if not isinstance(view.images.get(step), ImageConfig):
            view.images[step] = None
            self._background.begin(self._find(job, view, step))

    async def _find(self, job: Job, view: View, step: int) -> None:
        seen, (namespace, _) = self._pods.of(view.pod), names.parts(view.pod)
        image = seen.images.get(names.box(step)) if seen else None  # what it runs, whatever a tag means by now
        try:
            view.images[step] = await self._sources.find(job, image or job.image(step), namespace)
        except Unavailable as error:
            view.images[step] = Fault(Reason.IMAGE_PULL_FAILED, str(error))
        self._woken.put_nowait(job.id)

    async def launch(self, job: Job, step: int, given: Launching) -> None:
        view, key, spec = self._view(job), (step, job.steps[step].attempt), job.spec.steps[step]
        config = view.images.get(step)
        found = config if isinstance(config, ImageConfig) else ImageConfig("")
        words = spec.words(found.entrypoint, found.args)
        if not words:
            view.images[step] = Fault(Reason.START_FAILED, f"image {spec.source} has neither entrypoint nor command, and the step names none")
            return
        options = [*runner.step_options(job, step, given.retries, given.masked, self._settings), "--mirror"]
        command = runner.step_command(*key, spec, words, self._settings, options=options)
        agent, name, content = self._agent(job), runner.launch_file(*key), runner.order(given.environment, command)
        if view.orders is not None:
            view.orders.add(key)
        with suppress(FileExistsError):
            await _written(agent, name, content)

    async def remove(self, job: Job, key: Key) -> None:
        view = self._view(job)
        seen, container = self._pods.of(view.pod), names.box(key[0])
        if seen is not None and container in seen.running and key in (view.orders or ()) and not self._has_ended(view, key):
            line = await self._api.execute(names.parts(view.pod)[0], seen.name, container, [runner.RUNNER, "kill"])
            with suppress(OSError, EOFError):
                await line.read()
            await line.close()
        else:
            view.removed.add(key)

    def _has_ended(self, view: View, key: Key) -> bool:
        traces = view.traces.get(key)
        return traces is not None and traces.status is not None

    async def read_log(self, job: Job, key: Key, offset: int) -> bytes:
        with suppress(PermissionError):
            return await self._agent(job).read(runner.log_file(*key), offset, runner.MAX_READ)
        return b""  # the step shut it: what is there is lost

    async def read_output(self, job: Job, step: int) -> AsyncIterator[bytes]:
        seen = self._pods.of(job.pod) if job.pod else None
        if seen is not None and faults.of_pod(seen):
            raise FileNotFoundError
        agent, name, offset = self._agent(job), runner.output_file(step, job.steps[step].attempt), 0
        try:
            while block := await agent.read(name, offset, runner.MAX_READ):
                offset += len(block)
                yield block
        except PermissionError as error:
            raise FileNotFoundError from error

    # --- the end

    async def close(self, job: Job) -> None:
        await self.leave(job.id)
        if job.pod is not None and job.pod not in self._closed:
            await self._jobs.remove(job.pod)
            self._closed.append(job.pod)

    async def leave(self, job_id: str) -> None:
        view = self._views.pop(job_id, None)
        if view is not None:
            await view.hang_up()

    async def sweep(self, claims: Callable[[], Awaitable[Claims]]) -> None:
        found = await self._jobs.all(self._namespaces())
        claimed = await claims()
        pods = {pod for pod in claimed.jobs.values() if pod}
        unrecorded = {names.of_job(job_id) for job_id, pod in claimed.jobs.items() if pod is None}
        left = [pod for pod in found if pod not in pods and names.without_number(pod) not in unrecorded]
        await asyncio.gather(*(self._jobs.remove(pod) for pod in left))
        if left:
            log.info("swept %d Jobs that a crash left", len(left))

    async def wakes(self) -> AsyncIterator[str | None]:
        while True:
            yield await self._woken.get()

    # --- parts

    def _view(self, job: Job) -> View:
        if job.pod is None:
            raise Unavailable(f"Kubernetes: job {job.id} has no pod")
        return self._view_of(job.id, job.pod)

    def _view_of(self, job_id: str, pod: str) -> View:
        view = self._views.get(job_id)
        if view is None or view.pod != pod:
            view = self._views[job_id] = View(pod)
        return view

    def _traces(self, job: Job) -> Mapping[Key, runner.Traces]:
        view = self._views.get(job.id)
        return view.traces if view else {}

    def _agent(self, job: Job) -> Agent:
        agent = self._view(job).agent
        if agent is None:
            raise Unavailable(f"Kubernetes: nothing runs in the pod of job {job.id}")
        return agent


async def _written(agent: Agent, name: str, content: bytes) -> None:
    """A file of any size."""
    if len(content) <= runner.MAX_WRITE:
        return await agent.write(name, content)
    for offset in range(0, len(content), runner.MAX_WRITE):
        await agent.append(name, offset, content[offset : offset + runner.MAX_WRITE])
    return await agent.finish(name, len(content))


def _version(found: Mapping[str, str]) -> tuple[int, int]:
    return int(found["major"]), int(found["minor"].rstrip("+"))
