"""The Backend contract (`dray.backends`), held against every backend: the real Docker engine, and the fake.

A `Lab` is a backend with its engine: it knows sources that do known things, and how to let time pass.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import Any, Protocol

import pytest

from dray.backends import Backend
from dray.backends.docker import DockerBackend
from dray.backends.fake import FakeBackend, World
from dray.errors import Unavailable
from dray.log import Cursor, Tail, lines
from dray.settings import Settings
from dray.spec import parse
from dray.state import Box, Fault, Image, Job, Phase, Pod, Reason, Shape, Stage, new_job
from kit.images import Images

WITHIN = 20  # seconds for anything to happen


class Lab(Protocol):
    """One engine. Each `backend()` is another operator's."""

    def backend(self) -> Backend: ...
    def source(self, name: str) -> str:
        """Of a step: `hello` prints a line, `double` its input twice, `fails` exits 3, `sleeps` does so for long, `absent` is no image."""

    async def tick(self, job: Job) -> None:
        """Let a moment pass."""

    def kill_sandbox(self, job: Job) -> None: ...
    def break_down(self) -> None:
        """From now on the engine does not answer."""


class FakeLab:
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


class DockerLab:
    def __init__(self, engine: Any, image: Images, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.image, self.monkeypatch = engine, image, monkeypatch

    def backend(self) -> Backend:
        return DockerBackend(Settings(disk_floor=0))

    def source(self, name: str) -> str:
        if name == "absent":
            return "127.0.0.1:1/no/such/image"
        commands = {"hello": "echo hello", "double": "cat > /tmp/x; cat /tmp/x /tmp/x", "fails": "exit 3", "sleeps": "sleep 600"}
        return self.image.shell(commands[name])

    async def tick(self, _: Job) -> None:
        await asyncio.sleep(0.02)

    def kill_sandbox(self, job: Job) -> None:
        self.engine.containers.get(f"dray-{job.id.lower()}-sandbox").kill()

    def break_down(self) -> None:
        self.monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/engine.sock")


@pytest.fixture(params=["fake", "docker"])
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    if request.param == "fake":
        yield FakeLab()
        return
    engine = request.getfixturevalue("engine")
    yield DockerLab(engine, request.getfixturevalue("image"), monkeypatch)


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Bench:
    """One backend, started under an instance of its own, and closed with all its jobs at the end."""

    def __init__(self, lab: Lab, instance: str | None = None) -> None:
        self.lab, self.instance, self.jobs = lab, instance or f"test-{secrets.token_hex(4)}", list[Job]()

    async def __aenter__(self) -> Bench:
        self.backend = self.lab.backend()
        await self.backend.start(self.instance)
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            for job in self.jobs:
                await self.backend.close(job)
        await self.backend.stop()

    async def opened(self, *sources: str) -> Job:
        """A job whose pod is open."""
        spec = parse({"steps": [{"source": self.lab.source(source)} for source in sources]})
        job = replace(new_job(secrets.token_hex(16).upper(), spec, 1), phase=Phase.RUNNING)
        self.jobs.append(job)
        assert await self.backend.look(job) == Pod()
        return replace(job, pod=await self.backend.open(job))

    async def launched(self, *sources: str) -> Job:
        """A job with every step's box started."""
        job = await self.opened(*sources)
        for step in range(len(sources)):
            await self.backend.look(job)
            await self.backend.pull(job, step, False)
            await self.until(job, lambda pod, step=step: pod.images.get(step) is Image.READY)  # type: ignore[misc]
            await self.backend.launch(job, step)
        return job

    async def until(self, job: Job, holds: Callable[[Pod], object]) -> Pod:
        """The first look of which it holds; one that meets Unavailable is made again, as the contract says."""
        deadline, pod = time.monotonic() + WITHIN, Pod()
        while True:
            with suppress(Unavailable):
                if holds(pod := await self.backend.look(job)):
                    return pod
            assert time.monotonic() < deadline, pod
            await self.lab.tick(job)


def ended(*steps: int) -> Callable[[Pod], bool]:
    return lambda pod: all(pod.boxes.get((step, 1), Box(Stage.MADE)).stage is Stage.ENDED for step in steps)


def claimed(step: int) -> Callable[[Pod], bool]:
    return lambda pod: pod.boxes.get((step, 1), Box(Stage.MADE)).claimed_at is not None


async def output(backend: Backend, job: Job, step: int) -> bytes:
    return b"".join([block async for block in backend.read_output(job, step)])


@on_a_loop
async def test_steps_chain_themselves_and_all_agree_on_how_they_ended(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("hello", "double", "double")
        pod = await bench.until(job, ended(0, 1, 2))
        for step, size in enumerate((6, 12, 24)):
            box = pod.boxes[step, 1]
            assert box.status is not None
            assert (box.code, box.status.exit, box.status.error, box.status.bytes_out, box.holds_output) == (0, 0, "", size, True)
        assert await output(bench.backend, job, 2) == b"hello\n" * 4


@on_a_loop
async def test_a_box_waits_behind_its_gate(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened("hello", "double")
        for step in (1, 0):
            await bench.backend.pull(job, step, True)
        await bench.backend.launch(job, 1)
        for _ in range(10):
            await lab.tick(job)
        pod = await bench.backend.look(job)
        assert (pod.boxes[1, 1].stage, pod.boxes[1, 1].claimed_at) == (Stage.RUNNING, None)
        await bench.backend.launch(job, 0)
        await bench.until(job, ended(0, 1))
        assert await output(bench.backend, job, 1) == b"hello\nhello\n"


@on_a_loop
async def test_a_step_that_fails_keeps_the_next_from_beginning(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("fails", "hello")
        pod = await bench.until(job, ended(0, 1))
        assert (pod.boxes[0, 1].code, pod.boxes[1, 1].claimed_at, pod.boxes[1, 1].status) == (3, None, None)


@on_a_loop
async def test_open_and_launch_again_change_nothing(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("sleeps")
        before = await bench.until(job, claimed(0))
        await bench.backend.launch(job, 0)
        after = await bench.backend.look(job)
        assert after.boxes == before.boxes


@on_a_loop
async def test_another_operator_sees_and_goes_on_with_the_same_pod(lab: Lab) -> None:
    async with Bench(lab) as first:
        job = await first.launched("hello", "double")
        await first.until(job, ended(0, 1))
        async with Bench(lab, first.instance) as second:
            assert (await second.backend.look(job)).boxes == (await first.backend.look(job)).boxes
            assert await output(second.backend, job, 1) == b"hello\nhello\n"
            assert await second.backend.open(job) == job.pod


@on_a_loop
async def test_the_log_is_read_from_any_offset(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("hello")
        await bench.until(job, ended(0))
        size = bench.backend.logs(job)[0, 1]
        raw = await bench.backend.read_log(job, (0, 1), 0)
        assert len(raw) == size
        assert await bench.backend.read_log(job, (0, 1), 5) == raw[5:]
        assert await bench.backend.read_log(job, (0, 1), size) == b""
        chunk = Tail(Cursor()).feed(raw)
        assert chunk is not None
        assert [found for _, found in lines(chunk.payload)] == [[b"hello"]]


@on_a_loop
async def test_a_box_removed_while_it_runs_leaves_its_traces(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("sleeps")
        await bench.until(job, claimed(0))
        await bench.backend.remove(job, 0)
        await bench.backend.remove(job, 0)
        box = (await bench.backend.look(job)).boxes[0, 1]
        assert (box.stage, box.status) == (Stage.ABSENT, None)
        assert box.claimed_at is not None


@on_a_loop
async def test_a_sandbox_that_died_is_made_anew_on_the_same_volume(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("hello", "double")
        before = await bench.until(job, ended(0, 1))
        lab.kill_sandbox(job)
        assert (await bench.until(job, lambda pod: pod.shape is not Shape.OPEN)).shape is Shape.SHUT
        assert await bench.backend.open(job) == job.pod
        pod = await bench.backend.look(job)
        assert pod.shape is Shape.OPEN
        assert pod.boxes == {key: replace(box, cut_off=True) for key, box in before.boxes.items()}


@on_a_loop
async def test_an_output_dropped_is_gone_and_a_second_time_fine(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("hello")
        await bench.until(job, ended(0))
        await bench.backend.drop(job, 0)
        await bench.backend.drop(job, 0)
        assert not (await bench.backend.look(job)).boxes[0, 1].holds_output
        with pytest.raises(FileNotFoundError):
            await output(bench.backend, job, 0)


@on_a_loop
async def test_a_closed_pod_is_wholly_gone_and_a_second_time_fine(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("sleeps", "hello")
        await bench.backend.close(job)
        await bench.backend.close(job)
        assert await bench.backend.look(job) == Pod()


@on_a_loop
async def test_a_sweep_takes_what_is_this_instances_and_no_active_jobs(lab: Lab) -> None:
    async with Bench(lab) as mine, Bench(lab) as other:
        active, orphan, foreign = await mine.launched("sleeps"), await mine.launched("sleeps"), await other.launched("sleeps")
        await mine.backend.sweep([active.id])
        async with Bench(lab, mine.instance) as fresh:
            assert (await fresh.backend.look(orphan)).shape is Shape.ABSENT
            assert (await fresh.backend.look(active)).shape is Shape.OPEN
        assert (await other.backend.look(foreign)).shape is Shape.OPEN


@on_a_loop
async def test_an_image_that_cannot_be_had_is_a_fault_told_by_look(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened("absent")
        await bench.backend.pull(job, 0, True)
        pod = await bench.until(job, lambda pod: isinstance(pod.images.get(0), Fault))
        fault = pod.images[0]
        assert isinstance(fault, Fault)
        assert fault.early
        assert fault.reason in (Reason.IMAGE_NOT_FOUND, Reason.IMAGE_PULL_FAILED)


@on_a_loop
async def test_a_change_wakes(lab: Lab) -> None:
    async with Bench(lab) as bench:
        woken = bench.backend.wakes()
        job = await bench.launched("hello")
        await bench.until(job, ended(0))
        assert await _within(_first(woken, job.id)) == job.id


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK leaves a socket that could not connect to the collector
@on_a_loop
async def test_an_engine_that_does_not_answer_is_unavailable_not_empty(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened("hello")
        backend = bench.backend
        if isinstance(lab, FakeLab):
            lab.break_down()
        else:
            lab.break_down()
            backend = lab.backend()
        with pytest.raises(Unavailable):
            await backend.ping()
        with pytest.raises(Unavailable):
            await backend.look(job)
        if isinstance(lab, FakeLab):
            lab.world.down = False
        else:
            await backend.stop()
    gc.collect()


async def _first(woken: Any, job_id: str) -> str:
    async for found in woken:
        if found == job_id:
            return str(found)
    raise AssertionError("no wake-up")


async def _within(work: Awaitable[str]) -> str:
    return await asyncio.wait_for(work, WITHIN)
