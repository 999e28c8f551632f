"""The Backend contract (`dray.backends`), held against every backend: a real Docker engine, a real cluster, and the fake."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from backend_kit import (
    LEFT_SOCKETS,
    WITHIN,
    Bench,
    BrokenOffError,
    DockerLab,
    FakeLab,
    KubernetesLab,
    Lab,
    blocks,
    broken_off,
    claimed,
    claims,
    ended,
    half_done,
    on_a_loop,
    output,
    with_input,
)

from dray.backends import Launching
from dray.cluster import cluster
from dray.errors import Invalid, Unavailable
from dray.log import Cursor, Tail, lines
from dray.pod import Fault, Mark, Pod, Shape, Stage, Status
from dray.reason import Reason
from dray.record import Job


@pytest.fixture(params=["fake", "docker", pytest.param("kubernetes", marks=LEFT_SOCKETS)])
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    if request.param == "fake":
        yield FakeLab()
        return
    engine, image = request.getfixturevalue("engine"), request.getfixturevalue("image")
    if request.param == "docker":
        yield DockerLab(engine, image, monkeypatch)
        return
    yield KubernetesLab(request.getfixturevalue("job_namespace"), request.getfixturevalue("node_images"), image, monkeypatch)
    cluster.cache_clear()
    gc.collect()  # in this test, and in no later one: LEFT_SOCKETS


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
        await bench.backend.launch(job, 1, Launching({}))
        for _ in range(10):
            await lab.tick(job)
        pod = await bench.backend.look(job)
        assert (pod.boxes[1, 1].stage, pod.boxes[1, 1].claimed_at) == (Stage.RUNNING, None)
        await bench.backend.launch(job, 0, Launching({}))
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
        await bench.backend.launch(job, 0, Launching({}))
        after = await bench.backend.look(job)
        assert [(key, box.stage, box.claimed_at, box.status) for key, box in after.boxes.items()] == [
            ((0, 1), Stage.RUNNING, before.boxes[0, 1].claimed_at, None)
        ]


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
async def test_a_box_removed_runs_no_more_and_leaves_its_traces(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("sleeps")
        await bench.until(job, claimed(0))
        await bench.backend.remove(job, (0, 1))
        await bench.backend.remove(job, (0, 1))
        box = (await bench.until(job, lambda pod: pod.boxes[0, 1].stage is not Stage.RUNNING)).boxes[0, 1]
        assert box.stage is Stage.ABSENT or box.code == 137
        assert box.claimed_at is not None


@on_a_loop
async def test_a_sandbox_that_died_is_made_anew_on_the_same_volume(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("hello", "double")
        before = await bench.until(job, ended(0, 1))
        lab.kill_sandbox(job)
        if not lab.volume_outlives_sandbox:
            pod = await bench.until(job, lambda pod: pod.gone is not None)
            assert (pod.shape, pod.gone and pod.gone.reason, set(pod.boxes)) == (Shape.ABSENT, Reason.LOST, {(0, 1), (1, 1)})
            return
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
        await bench.backend.drop(job, (0, 1))
        await bench.backend.drop(job, (0, 1))
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
        await mine.backend.sweep(claims(active, operators=[mine.operator]))
        async with Bench(lab, mine.instance) as fresh:
            await fresh.until(orphan, lambda pod: pod.shape is Shape.ABSENT)
            assert (await fresh.backend.look(active)).shape is Shape.OPEN
        assert (await other.backend.look(foreign)).shape is Shape.OPEN


@on_a_loop
async def test_an_image_that_cannot_be_had_is_a_fault_told_by_look(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened("absent")
        await bench.backend.pull(job, 0, True)
        pod = await bench.until(job, lambda pod: isinstance(pod.images.get((0, 1)), Fault))
        fault = pod.images[0, 1]
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


@on_a_loop
async def test_the_engine_has_one_name_for_all(lab: Lab) -> None:
    async with Bench(lab) as first, Bench(lab) as second:
        assert first.engine == second.engine != ""


@on_a_loop
async def test_marks_are_there_until_they_are_taken_away_and_a_second_time_is_fine(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened("hello")
        await bench.backend.look(job)
        for mark in (Mark.HOLD, Mark.STOP, Mark.HOLD):
            await bench.backend.mark(job, mark, "cancelled")
        assert (await bench.backend.look(job)).marks == {Mark.HOLD, Mark.STOP}
        for _ in range(2):
            await bench.backend.unmark(job, Mark.HOLD)
        assert (await bench.backend.look(job)).marks == {Mark.STOP}


@on_a_loop
async def test_what_is_held_begins_only_once_it_is_released(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened("hello")
        await bench.backend.look(job)
        await bench.backend.mark(job, Mark.HOLD, "")
        await bench.launch(job, 0)
        for _ in range(10):
            await lab.tick(job)
        assert (await bench.backend.look(job)).boxes[0, 1].claimed_at is None
        await bench.backend.unmark(job, Mark.HOLD)
        await bench.until(job, ended(0))
        assert await output(bench.backend, job, 0) == b"hello\n"


@on_a_loop
async def test_what_is_stopped_before_it_began_never_begins(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened("hello", {"source": "hello", "always": True})
        await bench.backend.look(job)
        await bench.backend.mark(job, Mark.STOP, "cancelled")
        for step in (0, 1):
            await bench.launch(job, step)
        pod = await bench.until(job, ended(0, 1))
        assert (pod.boxes[0, 1].claimed_at, pod.boxes[0, 1].status) == (None, None)
        always = pod.boxes[1, 1].status
        assert always is not None
        assert (always.exit, always.bytes_in, always.bytes_out) == (0, 0, 0)


@pytest.mark.parametrize("size", [0, 70_000, 3_000_000])
@on_a_loop
async def test_a_seeded_output_is_the_next_steps_input(lab: Lab, size: int) -> None:
    given = (b"0123456789abcde\n" * (size // 16 + 1))[:size]
    async with Bench(lab) as bench:
        job = half_done(await bench.opened("hello", "double"), given)
        await bench.backend.look(job)
        for _ in range(2):
            await bench.backend.seed(job, 0, blocks(given[:100], given[100:]))
        await bench.launch(job, 1)
        pod = await bench.until(job, ended(1))
        seeded = pod.boxes[0, 3]
        assert (seeded.stage, seeded.claimed_at, seeded.status) == (Stage.ABSENT, None, _status_of(job))
        assert await output(bench.backend, job, 1) == given * 2


@pytest.mark.parametrize("size", [1, 70_000, 3_000_000])
@on_a_loop
async def test_a_jobs_input_is_what_its_first_step_reads(lab: Lab, size: int) -> None:
    content = (b"0123456789abcde\n" * (size // 16 + 1))[:size]
    async with Bench(lab) as bench:
        job = with_input(await bench.opened("double", "double"), content)
        await bench.launch(job, 0)
        await bench.launch(job, 1)
        for _ in range(10):
            await lab.tick(job)
        pod = await bench.backend.look(job)
        assert (pod.given, pod.boxes[0, 1].claimed_at, pod.verdicts) == (False, None, frozenset())
        for _ in range(2):
            await bench.backend.give(job, blocks(content[:100], content[100:]))
        assert (await bench.backend.look(job)).holds_input
        pod = await bench.until(job, ended(0, 1))
        assert pod.given
        for _ in range(2):
            await bench.backend.drop_input(job)
        pod = await bench.backend.look(job)
        assert (pod.given, pod.holds_input) == (True, False)
        status = pod.boxes[0, 1].status
        assert status is not None
        assert (status.bytes_in, status.bytes_out) == (size, 2 * size)
        assert await output(bench.backend, job, 1) == content * 4


@on_a_loop
async def test_an_input_that_breaks_off_is_given_anew(lab: Lab) -> None:
    content = b"0123456789abcde\n" * 200_000
    async with Bench(lab) as bench:
        job = with_input(await bench.opened("double"), content)
        await bench.backend.look(job)
        with pytest.raises(BrokenOffError):
            await bench.backend.give(job, broken_off(content[:2_000_000]))
        assert not (await bench.backend.look(job)).given
        await bench.backend.give(job, blocks(content))
        await bench.launch(job, 0)
        await bench.until(job, ended(0))
        assert await output(bench.backend, job, 0) == content * 2


@on_a_loop
async def test_the_word_that_a_step_ended_well_can_be_said_again(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened("hello", "double")
        assert (await bench.backend.look(job)).verdicts == frozenset()
        for _ in range(2):
            await bench.backend.reopen(job, 0)
            assert (await bench.until(job, lambda pod: pod.verdicts != frozenset())).verdicts == {0}


def _status_of(job: Job) -> Status:
    state = job.steps[0]
    assert state.bytes_out is not None
    return Status(0, 0, 0, "", 0, 0, state.bytes_out, 5, 7, state.sha256)


@on_a_loop
async def test_an_image_is_pinned_to_what_it_is_now_and_one_that_is_not_there_named(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = bench.job("hello", "double")
        pins = await bench.backend.pin(job.spec)
        assert len(set(pins)) == 2
        assert await bench.backend.pin(replace(job, pins=pins).spec) == pins
        with pytest.raises(Invalid) as caught:
            await bench.backend.pin(bench.job("hello", "absent", "absent").spec)
        assert [error.field for error in caught.value.errors] == ["steps[1].source", "steps[2].source"]


@on_a_loop
async def test_a_pinned_step_runs_the_pinned_image(lab: Lab) -> None:
    async with Bench(lab) as bench:
        job = await bench.open(replace(bench.job("absent"), pins=await bench.backend.pin(bench.job("hello").spec)))
        await bench.launch(job, 0)
        await bench.until(job, ended(0))
        assert await output(bench.backend, job, 0) == b"hello\n"


@on_a_loop
async def test_a_job_left_to_another_operator_runs_on(lab: Lab) -> None:
    async with Bench(lab) as first:
        job = await first.launched("sleeps")
        await first.until(job, claimed(0))
        for _ in range(2):
            await first.backend.leave(job.id)
        async with Bench(lab, first.instance) as second:
            pod = await second.backend.look(job)
            assert (pod.shape, pod.boxes[0, 1].stage) == (Shape.OPEN, Stage.RUNNING)


async def _first(woken: Any, job_id: str) -> str:
    async for found in woken:
        if found == job_id:
            return str(found)
    raise AssertionError("no wake-up")


async def _within(work: Awaitable[str]) -> str:
    return await asyncio.wait_for(work, WITHIN)
