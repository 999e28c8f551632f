"""A Backend without an engine, for the corners a real one cannot be driven into. It passes the same contract suite.

`World` is what outlives an operator: volumes, containers, and the programs that images run. Nothing in it happens by
itself: `advance` makes one small thing of those that could happen next happen (a gate opens and its command begins, a
command ends, its verdict falls, its container ends), so that a test can put a crash between any two. `FakeBackend` is
an operator's hand on it, with the memory that an operator loses when it dies.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from dray.backends import Claims, Launching
from dray.backends.seed import of_step
from dray.errors import FieldError, Invalid, Unavailable
from dray.log import Block
from dray.pod import Box, Fault, Image, Key, Mark, Pod, Shape, Stage, Status
from dray.reason import Reason
from dray.record import Job
from dray.spec import JobSpec

Program = Callable[[bytes], tuple[bytes, int]]
"""A step's command: stdin → (stdout, exit code)."""
_BLOCK = 2**16


@dataclass
class _Container:
    stage: Stage
    sandbox: int
    program: Program
    always: bool
    final: bool  # no attempt follows on it
    fed: bool  # its stdin is the job's input
    code: int | None = None


@dataclass
class _Volume:
    claims: dict[Key, int] = field(default_factory=dict)
    statuses: dict[Key, Status] = field(default_factory=dict)
    verdicts: dict[int, int | None] = field(default_factory=dict)  # step → attempt that ended well; None: failed
    outputs: dict[Key, bytes] = field(default_factory=dict)
    logs: dict[Key, bytes] = field(default_factory=dict)
    marks: dict[Mark, str] = field(default_factory=dict)
    given: bytes | None = None
    holds_input: bool = False


@dataclass
class _Pod:
    instance: str
    volume: _Volume = field(default_factory=_Volume)
    sandbox: int | None = None  # its number while it runs
    containers: dict[Key, _Container] = field(default_factory=dict)


class World:
    """An engine with its images. `runs` counts how often each attempt's command began."""

    def __init__(self, programs: Mapping[str, Program], name: str = "fake") -> None:
        self.name = name
        self.programs = dict(programs)
        self.pods: dict[str, _Pod] = {}
        self.runs: Counter[tuple[str, int, int]] = Counter()
        self.down = False
        self.woken: list[asyncio.Queue[str | None]] = []
        self._clock = 0
        self._sandboxes = 0

    def moves(self, job_id: str) -> list[Callable[[], None]]:
        """What could happen next in a job's pod, by itself."""
        pod = self.pods.get(job_id)
        if pod is None:
            return []
        found = [self._move(job_id, pod, key, container) for key, container in sorted(pod.containers.items()) if container.stage is Stage.RUNNING]
        return [move for move in found if move is not None]

    def advance(self, job_id: str) -> bool:
        """The first of the moves; False when there is none."""
        for move in self.moves(job_id)[:1]:
            move()
            self.notice(job_id)
            return True
        return False

    def kill(self, job_id: str, key: Key | None) -> None:
        """SIGKILL a box, or the sandbox (None). Not there, or ended: nothing."""
        pod = self.pods.get(job_id)
        if pod is None:
            return
        if key is None:
            pod.sandbox = None
        elif key in pod.containers and pod.containers[key].stage is Stage.RUNNING:
            pod.containers[key] = replace(pod.containers[key], stage=Stage.ENDED, code=137)
        self.notice(job_id)

    def remove(self, job_id: str, key: Key) -> None:
        """Somebody else removes a box by force."""
        if job_id in self.pods:
            self.pods[job_id].containers.pop(key, None)
            self.notice(job_id)

    def restart(self) -> None:
        """The engine ends and comes back: every container of every pod was killed."""
        for job_id, pod in self.pods.items():
            for key in pod.containers:
                self.kill(job_id, key)
            self.kill(job_id, None)

    def notice(self, job_id: str | None) -> None:
        for queue in self.woken:
            queue.put_nowait(job_id)

    def new_sandbox(self) -> int:
        self._sandboxes += 1
        return self._sandboxes

    def _now(self) -> int:
        self._clock += 1
        return self._clock

    def _move(self, job_id: str, pod: _Pod, key: Key, container: _Container) -> Callable[[], None] | None:
        step, attempt = key
        volume = pod.volume
        told = volume.marks.get(Mark.HALT if container.always else Mark.STOP)
        if key in volume.statuses:
            well = volume.statuses[key].exit == 0
            if step not in volume.verdicts and (well or container.final):
                return lambda: volume.verdicts.update({step: attempt if well else None})
            return lambda: self._end(pod, key, volume.statuses[key].exit)
        if key in volume.claims:
            return lambda: self._write(volume, key, container, told)
        if told is not None or (not container.always and volume.verdicts.get(step - 1, 0) is None):
            return lambda: self._end(pod, key, 0)
        open_ = container.always or (step == 0 and not container.fed) or (volume.given is not None if step == 0 else step - 1 in volume.verdicts)
        return (lambda: self._claim(job_id, volume, key)) if open_ and Mark.HOLD not in volume.marks else None

    def _claim(self, job_id: str, volume: _Volume, key: Key) -> None:
        volume.claims[key] = self._now()
        self.runs[(job_id, *key)] += 1

    def _write(self, volume: _Volume, key: Key, container: _Container, told: str | None) -> None:
        step = key[0]
        attempt_before = None if container.always else volume.verdicts.get(step - 1)
        given = volume.outputs[step - 1, attempt_before] if attempt_before is not None else (volume.given if container.fed else None) or b""
        output, code = container.program(given)
        volume.outputs[key] = b"" if container.always else output
        lines = output.count(b"\n") + (not output.endswith(b"\n") and output != b"")
        volume.logs[key] = Block(lines, self._now(), 1, output).dump() if lines else b""
        times = (volume.claims[key], self._now())
        sizes = (len(given), len(volume.outputs[key]))
        volume.statuses[key] = Status(125 if told else code, code, 0, told or "", 0, *sizes, *times, hashlib.sha256(volume.outputs[key]).hexdigest())

    def _end(self, pod: _Pod, key: Key, code: int) -> None:
        pod.containers[key] = replace(pod.containers[key], stage=Stage.ENDED, code=code)


class FakeBackend:
    """See `dray.backends.Backend`."""

    resolves = True

    def __init__(self, world: World) -> None:
        self._world = world
        self._images: dict[tuple[str, Key], Image | Fault] = {}
        self._woken: asyncio.Queue[str | None] = asyncio.Queue()

    async def start(self, instance: str, operator: str) -> str:  # noqa: ARG002 (nothing is made ahead)
        self._answering()
        self._instance = instance
        self._world.woken.append(self._woken)
        return self._world.name

    async def stop(self) -> None:
        if self._woken in self._world.woken:
            self._world.woken.remove(self._woken)

    async def ping(self) -> None:
        self._answering()

    async def look(self, job: Job) -> Pod:
        self._answering()
        pod = self._world.pods.get(job.id)
        if pod is None:
            return Pod()
        if pod.sandbox is None:
            return Pod(Shape.SHUT, {key: Box(container.stage, container.code) for key, container in pod.containers.items()})
        keys = {*pod.containers, *pod.volume.claims, *pod.volume.statuses}
        images = {key: image for (job_id, key), image in self._images.items() if job_id == job.id}
        boxes, given = {key: _box(pod, key) for key in keys}, pod.volume.given is not None
        return Pod(Shape.OPEN, boxes, images, frozenset(pod.volume.marks), frozenset(pod.volume.verdicts), given, pod.volume.holds_input)

    async def open(self, job: Job) -> str:
        self._answering()
        pod = self._world.pods.setdefault(job.id, _Pod(self._instance))
        if pod.sandbox is None:
            pod.sandbox = self._world.new_sandbox()
        return job.id

    async def pin(self, spec: JobSpec) -> tuple[str, ...]:
        self._answering()
        faults = [FieldError(f"steps[{i}].source", "there is no such program") for i, step in enumerate(spec.steps) if step.source not in self._world.programs]
        if faults:
            raise Invalid(faults)
        return tuple(step.source for step in spec.steps)

    async def pull(self, job: Job, step: int, early: bool) -> None:
        self._answering()
        source = job.image(step)
        absent = Fault(Reason.IMAGE_NOT_FOUND, f"image {source}: there is no such program", early)
        self._images[job.id, (step, job.steps[step].attempt)] = Image.READY if source in self._world.programs else absent

    async def launch(self, job: Job, step: int, given: Launching) -> None:
        pod, key = self._pod(job), (step, job.steps[step].attempt)
        if pod.sandbox is None:
            raise Unavailable("fake: the sandbox is gone")
        program = self._world.programs[job.image(step)]
        made = pod.containers.get(key) or _Container(
            Stage.MADE, pod.sandbox, program, job.spec.steps[step].always, given.retries == 0, step == 0 and job.input is not None
        )
        pod.containers[key] = replace(made, stage=Stage.RUNNING) if made.stage is Stage.MADE else made
        self._world.notice(job.id)

    async def remove(self, job: Job, key: Key) -> None:
        self._pod(job).containers.pop(key, None)

    async def drop(self, job: Job, key: Key) -> None:
        self._pod(job).volume.outputs.pop(key, None)

    async def drop_input(self, job: Job) -> None:
        self._pod(job).volume.holds_input = False

    async def mark(self, job: Job, mark: Mark, text: str) -> None:
        self._pod(job).volume.marks.setdefault(mark, text)
        self._world.notice(job.id)

    async def unmark(self, job: Job, mark: Mark) -> None:
        self._pod(job).volume.marks.pop(mark, None)
        self._world.notice(job.id)

    async def reopen(self, job: Job, step: int) -> None:
        self._pod(job).volume.verdicts.setdefault(step, job.steps[step].attempt)
        self._world.notice(job.id)

    async def give(self, job: Job, content: AsyncIterator[bytes]) -> None:
        volume = self._pod(job).volume
        if volume.given is None:
            volume.given = b"".join([block async for block in content])
            volume.holds_input = True
        self._world.notice(job.id)

    async def seed(self, job: Job, step: int, output: AsyncIterator[bytes]) -> None:
        volume, state = self._pod(job).volume, job.steps[step]
        volume.outputs[step, state.attempt] = b"".join([block async for block in output])
        volume.statuses[step, state.attempt] = of_step(state)
        volume.verdicts.setdefault(step, state.attempt)
        self._world.notice(job.id)

    def logs(self, job: Job) -> Mapping[Key, int]:
        pod = self._world.pods.get(job.id)
        return {key: len(log) for key, log in pod.volume.logs.items()} if pod else {}

    async def read_log(self, job: Job, key: Key, offset: int) -> bytes:
        return self._pod(job).volume.logs[key][offset : offset + _BLOCK]

    async def read_output(self, job: Job, step: int) -> AsyncIterator[bytes]:
        output = self._pod(job).volume.outputs.get((step, job.steps[step].attempt))
        if output is None:
            raise FileNotFoundError
        for start in range(0, len(output), _BLOCK):
            yield output[start : start + _BLOCK]

    async def close(self, job: Job) -> None:
        self._answering()
        self._world.pods.pop(job.id, None)
        self._images = {key: image for key, image in self._images.items() if key[0] != job.id}

    async def leave(self, job_id: str) -> None:
        self._images = {key: image for key, image in self._images.items() if key[0] != job_id}

    async def sweep(self, claims: Callable[[], Awaitable[Claims]]) -> None:
        self._answering()
        found = [job_id for job_id, pod in self._world.pods.items() if pod.instance == self._instance]
        claimed = (await claims()).jobs
        for job_id in found:
            if job_id not in claimed:
                del self._world.pods[job_id]

    async def wakes(self) -> AsyncIterator[str | None]:
        while True:
            yield await self._woken.get()

    def _answering(self) -> None:
        if self._world.down:
            raise Unavailable("fake: the engine is down")

    def _pod(self, job: Job) -> _Pod:
        self._answering()
        if job.id not in self._world.pods:
            raise Unavailable(f"fake: job {job.id} has no pod")
        return self._world.pods[job.id]


def _box(pod: _Pod, key: Key) -> Box:
    container, volume = pod.containers.get(key), pod.volume
    return Box(
        stage=container.stage if container else Stage.ABSENT,
        code=container.code if container else None,
        claimed_at=volume.claims.get(key),
        status=volume.statuses.get(key),
        cut_off=container is not None and container.sandbox != pod.sandbox,
        holds_output=key in volume.outputs,
    )
