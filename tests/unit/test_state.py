"""The state machine: each rule by itself, then whole jobs under random crashes.

The simulation drives the real `Reconciler` over the fake backend. Between any two of its calls, and before or after the
effect of any one, the operator may be killed; containers, sandbox and engine may die at any moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dray.backends.fake import FakeBackend, Program, World
from dray.errors import Stale, Unavailable
from dray.log import Chunk, Cursor, lines
from dray.outputs import Outputs
from dray.reconcile import Reconciler
from dray.settings import Settings
from dray.spec import JobSpec, parse
from dray.state import (
    FINAL,
    MEANING,
    Box,
    Close,
    Fault,
    Finish,
    Forget,
    Image,
    Job,
    Launch,
    Open,
    Phase,
    Pod,
    Pull,
    Reason,
    Remake,
    Retire,
    Save,
    Shape,
    Stage,
    Status,
    Tidy,
    decide,
    fold,
    new_job,
    remade,
)

PROGRAMS: dict[str, Program] = {
    "hello": lambda _: (b"hello\n", 0),
    "double": lambda given: (given + given, 0),
    "fails": lambda _: (b"half", 3),
}
WELL = Status(0, 0, 0, "", 0, 1, 2, 10, 20)


def job_of(*sources: str, **changes: Any) -> Job:
    job = new_job("J", parse({"steps": [{"source": source} for source in sources]}), 1)
    return replace(job, phase=Phase.RUNNING, pod="pod", **changes)


def look(*boxes: Box, images: Mapping[int, Image | Fault] | None = None) -> Pod:
    return Pod(Shape.OPEN, {(step, 1): box for step, box in enumerate(boxes)}, images or {})


# --- one rule each


def test_a_waiting_job_begins_then_its_pod_is_opened() -> None:
    waiting = replace(job_of("a"), phase=Phase.WAITING, pod=None)
    begun = decide(waiting, Pod(), 7, 2)
    assert isinstance(begun, Save)
    assert (begun.job.phase, begun.job.started_at) == (Phase.RUNNING, 7)
    assert decide(begun.job, Pod(), 8, 2) == Open()


def test_a_pod_whose_sandbox_died_is_opened_again() -> None:
    assert decide(job_of("a"), Pod(Shape.SHUT), 1, 2) == Open()


def test_a_volume_that_vanished_loses_the_job() -> None:
    finish = decide(job_of("a"), Pod(Shape.ABSENT), 1, 2)
    assert isinstance(finish, Finish)
    assert finish.job.reason is Reason.LOST


def test_steps_are_launched_ahead_as_far_as_the_window() -> None:
    ready = dict.fromkeys(range(4), Image.READY)
    job, running = job_of("a", "b", "c", "d"), Box(Stage.RUNNING)
    assert decide(job, look(images=ready), 1, 2) == Launch(0)
    assert decide(job, look(running, images=ready), 1, 2) == Launch(1)
    assert decide(job, look(running, running, images=ready), 1, 2) == Launch(2)
    assert decide(job, look(running, running, running, images=ready), 1, 2) is None


def test_an_image_is_pulled_before_its_step_and_refreshed_only_at_its_turn() -> None:
    spec = parse({"steps": [{"source": "a"}, {"source": "b", "refresh": True}]})
    job = replace(new_job("J", spec, 1), phase=Phase.RUNNING, pod="pod")
    assert decide(job, look(), 1, 2) == Pull(0, early=False)
    assert decide(job, look(Box(Stage.RUNNING), images={0: Image.READY}), 1, 2) is None
    assert decide(job_of("a", "b"), look(Box(Stage.RUNNING), images={0: Image.READY}), 1, 2) == Pull(1, early=True)


def test_a_missing_image_counts_only_at_its_turn_and_after_another_look() -> None:
    early = Fault(Reason.IMAGE_NOT_FOUND, "no", early=True)
    running, ended = Box(Stage.RUNNING, claimed_at=1), Box(Stage.ENDED, 0, claimed_at=1, status=WELL)
    job = fold(job_of("a", "b"), look(running), 1)
    assert decide(job, look(running, images={0: Image.READY, 1: early}), 1, 2) is None
    job = fold(job, look(ended), 1)
    assert decide(job, look(ended, images={1: early}), 1, 2) == Pull(1, early=False)
    finish = decide(job, look(ended, images={1: replace(early, early=False)}), 1, 2)
    assert isinstance(finish, Finish)
    assert (finish.job.reason, finish.job.current) == (Reason.IMAGE_NOT_FOUND, 1)


def test_a_box_that_ended_before_it_began_is_made_again_but_not_for_ever() -> None:
    job = job_of("a")
    pod = look(Box(Stage.ENDED, 143), images={0: Image.READY})
    for _ in range(6):
        assert decide(job, pod, 1, 2) == Remake(0)
        job = remade(job, 0)
    finish = decide(job, pod, 1, 2)
    assert isinstance(finish, Finish)
    assert finish.job.reason is Reason.START_FAILED


def test_a_gated_box_of_a_dead_sandbox_is_made_again() -> None:
    pod = look(Box(Stage.RUNNING, claimed_at=1), Box(Stage.RUNNING, cut_off=True), images={0: Image.READY, 1: Image.READY})
    job = fold(job_of("a", "b"), pod, 1)
    assert decide(job, pod, 1, 2) == Remake(1)


CLAIMED = Box(Stage.ENDED, 0, claimed_at=1)
BY_MEANING: dict[str, tuple[Box, Reason | Phase]] = {
    "no claim": (Box(Stage.RUNNING), Phase.WAITING),
    "no claim, and an exit code that no gate has": (Box(Stage.ENDED, 0), Reason.LOST),
    "claim, container running": (replace(CLAIMED, stage=Stage.RUNNING), Phase.RUNNING),
    "claim, no status, container gone": (CLAIMED, Reason.LOST),
    "claim and status, no container to ask": (replace(CLAIMED, stage=Stage.ABSENT, status=WELL), Reason.LOST),
    "claim and status, the engine killed it or did not see its end": (replace(CLAIMED, code=137, status=WELL), Reason.LOST),
    "claim and status, the engine reports another exit code": (replace(CLAIMED, code=1, status=WELL), Reason.STATUS_MISMATCH),
    "claim and status 0, the engine agrees": (replace(CLAIMED, status=WELL), Phase.COMPLETE),
    "claim and another status, the engine agrees": (replace(CLAIMED, code=3, status=replace(WELL, exit=3, code=3)), Reason.EXIT_CODE),
}


@pytest.mark.parametrize("meaning", MEANING)
def test_what_a_box_shows_means_what_the_table_says(meaning: str) -> None:
    box, expected = BY_MEANING[meaning]
    seen = fold(job_of("a", "b"), look(box), 5)
    assert expected == (seen.reason or seen.steps[0].phase)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (replace(CLAIMED, oom=True, code=137), Reason.OUT_OF_MEMORY),
        (replace(CLAIMED, oom=True, code=137, status=replace(WELL, exit=137, code=-1, signal=9)), Reason.OUT_OF_MEMORY),
        (replace(CLAIMED, code=127, status=replace(WELL, exit=127, error="exec", errno=2)), Reason.START_FAILED),
        (replace(CLAIMED, code=127, status=replace(WELL, exit=127, code=127)), Reason.EXIT_CODE),
        (replace(CLAIMED, code=125, status=replace(WELL, exit=125, error="input")), Reason.INPUT_DAMAGED),
        (replace(CLAIMED, code=125, status=replace(WELL, exit=125, error="output_missing")), Reason.OUTPUT_MISSING),
        (replace(CLAIMED, code=125, status=replace(WELL, exit=125, error="data_limit")), Reason.DATA_LIMIT),
        (replace(CLAIMED, code=125, status=replace(WELL, exit=125, error="disk_floor")), Reason.DISK_FULL),
        (replace(CLAIMED, code=125, status=replace(WELL, exit=125, error="write", errno=28)), Reason.DISK_FULL),
        (replace(CLAIMED, code=125, status=replace(WELL, exit=125, error="made up by a step")), Reason.STATUS_MISMATCH),
    ],
)
def test_each_way_to_fail_has_its_reason(box: Box, reason: Reason) -> None:
    assert fold(job_of("a"), look(box), 5).reason is reason


def test_a_step_that_removes_its_claim_does_not_run_again() -> None:
    seen_running = fold(job_of("a"), look(replace(CLAIMED, stage=Stage.RUNNING)), 5)
    assert fold(seen_running, look(Box(Stage.ENDED, 137)), 6).reason is Reason.LOST
    assert fold(seen_running, look(Box(Stage.RUNNING)), 6) == seen_running
    assert decide(seen_running, look(Box(Stage.RUNNING, cut_off=True), images={0: Image.READY}), 6, 2) is None
    with_status = fold(job_of("a"), look(Box(Stage.ENDED, 0, status=WELL)), 6)
    assert (with_status.phase, with_status.steps[0].started_at) == (Phase.COMPLETE, WELL.started_at)


def test_a_step_killed_for_memory_that_exits_0_all_the_same_is_complete() -> None:
    assert fold(job_of("a"), look(replace(CLAIMED, oom=True, status=WELL)), 5).phase is Phase.COMPLETE


def test_one_look_may_complete_several_steps() -> None:
    ended = replace(CLAIMED, status=WELL)
    seen = fold(job_of("a", "b", "c"), look(ended, ended, replace(CLAIMED, stage=Stage.RUNNING)), 5)
    assert [state.phase for state in seen.steps] == [Phase.COMPLETE, Phase.COMPLETE, Phase.RUNNING]


def test_outputs_go_once_the_step_after_is_complete_too() -> None:
    ended = replace(CLAIMED, status=WELL, holds_output=True)
    gone = replace(ended, stage=Stage.ABSENT)
    running = replace(CLAIMED, stage=Stage.RUNNING)
    job = fold(job_of("a", "b", "c"), look(ended, ended, running), 5)
    assert decide(job, look(ended, gone, running), 6, 0) == Tidy(0)
    assert decide(job, look(replace(gone, holds_output=False), gone, running), 6, 0) is None


def test_an_ended_job_is_closed_then_retired_and_a_deleted_one_forgotten() -> None:
    ended = replace(job_of("a"), phase=Phase.COMPLETE)
    assert decide(ended, Pod(Shape.OPEN), 1, 2) == Close()
    assert decide(ended, Pod(), 1, 2) == Retire()
    assert decide(replace(ended, doomed=True), Pod(), 1, 2) == Forget()


def test_a_deleted_job_that_waits_is_forgotten_and_one_that_runs_goes_on() -> None:
    waiting = replace(job_of("a"), phase=Phase.WAITING, pod=None, doomed=True)
    assert decide(waiting, Pod(), 1, 2) == Forget()
    assert decide(job_of("a", doomed=True), look(images={0: Image.READY}), 1, 2) == Launch(0)


def test_a_record_survives_being_written_down() -> None:
    spec = JobSpec.model_validate({"steps": [{"source": "a"}, {"source": "b"}]})
    job = replace(new_job("J", spec, 5), phase=Phase.ERROR, reason=Reason.LOST, message="m", finished_at=9, version=4, pod="p")
    assert Job.load("J", spec, job.dump(), 4, doomed=False) == job


# --- whole jobs


class Crash(BaseException):
    """The operator is killed."""


@dataclass
class MemoryStore:
    """The part of `Store` that a reconciler uses, with its promises: compare-and-set, append by cursor."""

    job: Job | None
    cursors_kept: dict[tuple[int, int], Cursor] = field(default_factory=dict)
    log: list[bytes] = field(default_factory=list)
    output: bytes | None = None
    active: bool = True

    async def load(self, _: str) -> Job | None:
        return self.job

    async def save(self, job: Job) -> Job:
        assert self.job is not None
        if job.version != self.job.version:
            raise Stale(job.id)
        assert self.job.phase not in FINAL, "an ended job was saved once more"
        self.job = replace(job, version=job.version + 1)
        return self.job

    async def retire(self, _: Job) -> None:
        self.active = False

    async def cursors(self, _: str) -> dict[tuple[int, int], Cursor]:
        return dict(self.cursors_kept)

    async def append(self, _: str, key: tuple[int, int], chunk: Chunk) -> None:
        if self.cursors_kept.get(key, Cursor()) != chunk.start:
            raise Stale
        self.log += [line for _, found in lines(chunk.payload) for line in found]
        self.cursors_kept[key] = chunk.end

    async def keep_output(self, _: str, output: bytes) -> None:
        self.output = output


class Doomed:
    """Hands calls on to `inner`, and kills the operator at the chosen one, before or after its effect."""

    def __init__(self, inner: Any, due: Callable[[], str]) -> None:
        self._inner, self._due = inner, due

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(inner):
            return inner

        async def call(*args: Any) -> Any:
            due = self._due()
            if due == "before":
                raise Crash
            result = await inner(*args)
            if due == "after":
                raise Crash
            return result

        return call


@dataclass
class Plan:
    """What befalls a run: one word for each call or pause, "" once they are used up."""

    words: list[str]

    def next(self) -> str:
        return self.words.pop() if self.words else ""


async def run_job(job: Job, calls: Plan, pauses: Plan, root: Path, ahead: int) -> tuple[MemoryStore, World]:
    store, world = MemoryStore(job), World(PROGRAMS)
    outputs, knobs = Outputs((root / "outputs").as_uri()), Settings(ahead=ahead)
    while store.active:
        backend: Any = Doomed(FakeBackend(world), calls.next)
        reconciler = Reconciler(job.id, Doomed(store, calls.next), backend, outputs, knobs, lambda: 1)  # type: ignore[arg-type]
        try:
            await backend.start("test")
            await operate(reconciler, store, world, pauses)
        except (Crash, Stale, Unavailable):
            continue
    return store, world


async def operate(reconciler: Reconciler, store: MemoryStore, world: World, pauses: Plan) -> None:
    while store.active:
        due = await reconciler.step()
        current = (store.job.current, 1) if store.job else (0, 1)
        match pauses.next():
            case "kill box":
                world.kill("J", current)
            case "kill sandbox":
                world.kill("J", None)
            case "remove box":
                world.remove("J", current)
            case "remove volume":
                world.pods.pop("J", None)
            case "restart":
                world.restart()
            case _:
                moved = world.advance("J")
                assert due or moved or not store.active, "nothing is due, nothing moves, and the job has not ended"


PAUSES = st.lists(st.sampled_from(["", "", "", "", "", "", "", "kill box", "remove box", "kill sandbox", "restart", "remove volume"]), max_size=40)
CALLS = st.lists(st.sampled_from(["", "", "", "", "before", "after"]), max_size=120)
SOURCES = st.lists(st.sampled_from(["hello", "double", "double", "fails", "absent"]), min_size=1, max_size=5)


def expected(sources: list[str]) -> tuple[Phase, Reason | None, bytes]:
    """What a job of these steps comes to when only the operator is killed."""
    given = b""
    for source in sources:
        if source == "absent":
            return Phase.ERROR, Reason.IMAGE_NOT_FOUND, b""
        given, code = PROGRAMS[source](given)
        if code:
            return Phase.ERROR, Reason.EXIT_CODE, b""
    return Phase.COMPLETE, None, given


@settings(max_examples=300, deadline=None)
@given(sources=SOURCES, calls=CALLS, ahead=st.integers(0, 3))
def test_a_killed_operator_changes_nothing_of_a_jobs_end(sources: list[str], calls: list[str], ahead: int, tmp_path_factory: Any) -> None:
    job = new_job("J", parse({"steps": [{"source": source} for source in sources]}), 1)
    store, world = asyncio.run(run_job(job, Plan(calls), Plan([]), tmp_path_factory.getbasetemp(), ahead))
    phase, reason, output = expected(sources)
    assert store.job is not None
    assert (store.job.phase, store.job.reason) == (phase, reason)
    assert (store.output or b"") == output
    assert all(count == 1 for count in world.runs.values())
    assert world.pods == {}


@settings(max_examples=300, deadline=None)
@given(sources=SOURCES, calls=CALLS, pauses=PAUSES, ahead=st.integers(0, 3))
def test_whatever_dies_a_job_ends_once_and_truthfully(sources: list[str], calls: list[str], pauses: list[str], ahead: int, tmp_path_factory: Any) -> None:
    job = new_job("J", parse({"steps": [{"source": source} for source in sources]}), 1)
    store, world = asyncio.run(run_job(job, Plan(calls), Plan(pauses), tmp_path_factory.getbasetemp(), ahead))
    phase, reason, output = expected(sources)
    assert store.job is not None
    assert store.job.phase in FINAL
    if store.job.phase is Phase.COMPLETE:
        assert (phase, store.output) == (Phase.COMPLETE, output)
        assert store.log == b"".join(log_of(sources)).splitlines()
    else:
        assert store.job.reason in {reason, Reason.LOST, Reason.START_FAILED}
    assert all(count == 1 for count in world.runs.values()), "an attempt ran twice"
    assert world.pods == {}


def log_of(sources: list[str]) -> list[bytes]:
    given, log = b"", []
    for source in sources:
        given, _ = PROGRAMS[source](given)
        log.append(given)
    return log
