"""What the tests of backends share: labs and benches.

A `Lab` is a backend with its engine: it knows sources that do known things, and how to let time pass. A `Bench` is one
operator's backend in a lab.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

import pytest

from dray.backends import Backend, Claims, Launching
from dray.backends.docker import DockerBackend
from dray.backends.fake import FakeBackend, World
from dray.backends.kubernetes import KubernetesBackend
from dray.cluster import cluster
from dray.errors import Unavailable
from dray.pod import Box, Image, Pod, Shape, Stage
from dray.record import Input, Job, Phase, new_job
from dray.settings import Runs, Settings
from dray.spec import parse
from kit.images import Images
from kit.kubernetes import JobNamespace
from kit.nodes import NodeImages

WITHIN = 30  # seconds for anything to happen
LEFT_SOCKETS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""aiohttp leaves a connection that is cancelled while it is made to the collector."""


class Lab(Protocol):
    """One engine. Each `backend()` is another operator's."""

    def backend(self) -> Backend: ...
    def source(self, name: str) -> str:
        """Of a step: `hello` prints a line, `double` its input twice, `fails` exits 3, `sleeps` does so for long, `absent` is no image."""

    async def tick(self, job: Job) -> None:
        """Let a moment pass."""

    volume_outlives_sandbox: bool

    def kill_sandbox(self, job: Job) -> None: ...
    def break_down(self) -> None:
        """From now on the engine does not answer."""


class FakeLab:
    volume_outlives_sandbox = True

    def __init__(self) -> None:
        programs = {"hello": lambda _: (b"hello\n", 0), "double": lambda given: (given * 2, 0), "fails": lambda _: (b"", 3), "sleeps": lambda _: (b"", 0)}
        self.world = World(programs)

    def backend(self) -> Backend:
        return FakeBackend(self.world)

    def source(self, name: str) -> str:
        return name

    async def tick(self, job: Job) -> None:
        if not any(step.source == "sleeps" for step in job.spec.steps) or not self.world.runs:
            self.world.advance(job.id)

    def kill_sandbox(self, job: Job) -> None:
        self.world.kill(job.id, None)

    def break_down(self) -> None:
        self.world.down = True


_SCRIPTS = {"hello": "echo hello", "double": "cat > /tmp/x; cat /tmp/x /tmp/x", "fails": "exit 3", "sleeps": "sleep 600"}


class DockerLab:
    """Here a source of no known name is a shell script."""

    volume_outlives_sandbox = True

    def __init__(self, engine: Any, image: Images, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.image, self.monkeypatch = engine, image, monkeypatch
        self.settings = Settings(disk_floor=0, sandboxes=0)

    def backend(self) -> Backend:
        return DockerBackend(self.settings)

    def source(self, name: str) -> str:
        if name == "absent":
            return "127.0.0.1:1/no/such/image"
        return self.image.shell(_SCRIPTS.get(name, name))

    async def tick(self, _: Job) -> None:
        await asyncio.sleep(0.02)

    def kill_sandbox(self, job: Job) -> None:
        self.engine.containers.get(f"{job.pod}-sandbox").kill()

    def break_down(self) -> None:
        self.monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/engine.sock")


class KubernetesLab:
    """Here too a source of no known name is a shell script. The operator has the permissions that the docs name, and no others."""

    volume_outlives_sandbox = False

    def __init__(self, namespace: JobNamespace, nodes: NodeImages, image: Images, monkeypatch: pytest.MonkeyPatch) -> None:
        self.namespace, self.nodes, self.image, self.monkeypatch = namespace, nodes, image, monkeypatch
        self.settings = Settings(disk_floor=0, backend=Runs.KUBERNETES, image=nodes.ours)
        self._ask(namespace.kubeconfig)

    def _ask(self, kubeconfig: Path) -> None:
        self.monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        cluster.cache_clear()

    def backend(self) -> Backend:
        return KubernetesBackend(self.settings)

    def source(self, name: str) -> str:
        return "127.0.0.1:1/no/such/image" if name == "absent" else self.nodes.of(self.image.shell(_SCRIPTS.get(name, name)))

    async def tick(self, _: Job) -> None:
        await asyncio.sleep(0.05)

    def kill_sandbox(self, job: Job) -> None:
        (pod,) = self.namespace.pods(job.id)
        self.namespace.kubectl("delete", "pod", pod["metadata"]["name"])

    def break_down(self) -> None:
        self._ask(self.namespace.kubeconfig_at("https://127.0.0.1:1"))


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Bench:
    """One backend, started under an instance of its own, and closed with all its jobs at the end."""

    def __init__(self, lab: Lab, instance: str | None = None) -> None:
        self.lab, self.instance, self.jobs = lab, instance or f"test-{secrets.token_hex(4)}", list[Job]()
        self.operator = f"operator-{secrets.token_hex(4)}"

    async def __aenter__(self) -> Bench:
        self.backend = self.lab.backend()
        self.engine = await self.backend.start(self.instance, self.operator)
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            for job in self.jobs:
                await self.backend.close(job)
        await self.backend.stop()

    def job(self, *steps: str | dict[str, Any], **fields: Any) -> Job:
        """A job that runs, with nothing made for it yet. A step is a source of the lab's, or its fields."""
        given = [{"source": step} if isinstance(step, str) else step for step in steps]
        spec = parse({"steps": [{**step, "source": self.lab.source(step["source"])} for step in given], **fields})
        return replace(new_job(secrets.token_hex(16).upper(), spec, 1), phase=Phase.RUNNING)

    async def opened(self, *steps: str | dict[str, Any], **fields: Any) -> Job:
        """A job whose pod is open."""
        return await self.open(self.job(*steps, **fields))

    async def open(self, job: Job) -> Job:
        """The job, with an open pod."""
        assert await self.backend.look(job) == Pod()
        job = replace(job, pod=await self.backend.open(job), engine=self.engine)
        self.jobs.append(job)
        await self.until(job, lambda pod: pod.shape is Shape.OPEN)
        return job

    async def launched(self, *steps: str | dict[str, Any], **fields: Any) -> Job:
        """A job with every step's box started."""
        job = await self.opened(*steps, **fields)
        for step in range(len(steps)):
            await self.launch(job, step)
        return job

    async def launch(self, job: Job, step: int, given: Launching = Launching({})) -> None:  # noqa: B008 (frozen)
        """The box of the step's attempt."""
        key = (step, job.steps[step].attempt)
        await self.backend.look(job)
        await self.backend.pull(job, step, False)
        await self.until(job, lambda pod: pod.images.get(key) is Image.READY)
        await self.backend.launch(job, step, given)

    async def until(self, job: Job, holds: Callable[[Pod], object], within: float = WITHIN) -> Pod:
        """The first look of which it holds; one that meets Unavailable is made again, as the contract says."""
        deadline, pod = time.monotonic() + within, Pod()
        while True:
            with suppress(Unavailable):
                if holds(pod := await self.backend.look(job)):
                    return pod
            assert time.monotonic() < deadline, pod
            await self.lab.tick(job)


def claims(*jobs: Job, operators: Collection[str] = ()) -> Callable[[], Awaitable[Claims]]:
    async def claims() -> Claims:
        return Claims({job.id: job.pod for job in jobs}, operators)

    return claims


async def blocks(*content: bytes) -> AsyncIterator[bytes]:
    for block in content:
        yield block


class BrokenOffError(Exception):
    """What is kept can no longer be read."""


async def broken_off(start: bytes) -> AsyncIterator[bytes]:
    yield start
    raise BrokenOffError


def half_done(job: Job, given: bytes) -> Job:
    """The job, whose first step gave that in its third attempt, elsewhere."""
    state = replace(job.steps[0], phase=Phase.COMPLETE, attempt=3, exit_code=0, bytes_in=0, bytes_out=len(given), started_at=5, finished_at=7)
    return job.with_step(0, replace(state, sha256=hashlib.sha256(given).hexdigest()))


def with_input(job: Job, content: bytes) -> Job:
    return replace(job, input=Input(len(content), hashlib.sha256(content).hexdigest()))


def ended(*steps: int) -> Callable[[Pod], bool]:
    return lambda pod: all(pod.boxes.get((step, 1), Box(Stage.MADE)).stage is Stage.ENDED for step in steps)


def claimed(step: int) -> Callable[[Pod], bool]:
    return lambda pod: pod.boxes.get((step, 1), Box(Stage.MADE)).claimed_at is not None


async def output(backend: Backend, job: Job, step: int) -> bytes:
    return b"".join([block async for block in backend.read_output(job, step)])
