"""The state machine: each rule by itself, then whole jobs under random crashes.

The simulation drives the real `Reconciler` over the fake backend. Between any two of its calls, and before or after the
effect of any one, the operator may be killed; containers, sandbox and engine may die at any moment.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dray.action import Close, Finish, Forget, Give, Kill, Launch, Open, Pull, Remake, Reopen, Retire, Save, Seed, SetMark, Tidy, TidyInput, Unmark
from dray.backends.fake import FakeBackend, Program, World
from dray.clock import SECOND
from dray.errors import Stale, Unavailable
from dray.judge import MEANING
from dray.log import Chunk, Cursor, lines
from dray.outputs import Outputs
from dray.pod import Box, Fault, Image, Key, Mark, Pod, Shape, Stage, Status
from dray.reason import MEANINGS, Reason
from dray.reconcile import Reconciler, Tools
from dray.record import FINAL, INPUT, Beside, Input, Job, Past, Phase, StepState, Told, new_job
from dray.settings import Settings
from dray.spec import JobSpec, parse
from dray.state import Rules, decide, due, fold, inputless, moved, remade, unfed

PROGRAMS: dict[str, Program] = {
    "hello": lambda _: (b"hello\n", 0),
    "double": lambda given: (given + given, 0),
    "fails": lambda _: (b"half", 3),
}
WELL = Status(0, 0, 0, "", 0, 1, 2, 10, 20)


def ahead(steps: int) -> Rules:
    return Rules(steps, 10 * SECOND, "fake")


def running(given: dict[str, Any], **changes: Any) -> Job:
    job = replace(new_job("J", parse(given), 1), phase=Phase.RUNNING, pod="pod", engine="fake", started_at=1)
    return replace(job, **changes)


def job_of(*sources: str, **changes: Any) -> Job:
    return running({"steps": [{"source": source} for source in sources]}, **changes)


def look(*boxes: Box, images: Mapping[int, Image | Fault] | None = None, marks: frozenset[Mark] = frozenset()) -> Pod:
    """An open pod of first attempts; the ones that ended well have their verdict."""
    by_key = {(step, 1): box for step, box in enumerate(boxes)}
    well = frozenset(step for step, box in enumerate(boxes) if box.stage is not Stage.ABSENT and box.status and box.status.exit == 0)
    return Pod(Shape.OPEN, by_key, {(step, 1): image for step, image in (images or {}).items()}, marks, well)


def ended(code: int = 0, **status: Any) -> Box:
    """A box whose command ran and whose runner told of it."""
    return Box(Stage.ENDED, code, claimed_at=1, status=replace(WELL, exit=code, code=code, **status))


# --- one rule each


def test_a_waiting_job_begins_then_its_pod_is_opened() -> None:
    waiting = replace(job_of("a"), phase=Phase.WAITING, pod=None, engine=None)
    begun = decide(waiting, Pod(), 7, ahead(2))
    assert isinstance(begun, Save)
    assert (begun.job.phase, begun.job.started_at) == (Phase.RUNNING, 7)
    assert decide(begun.job, Pod(), 8, ahead(2)) == Open()


def test_a_pod_whose_sandbox_died_is_opened_again() -> None:
    assert decide(job_of("a"), Pod(Shape.SHUT), 1, ahead(2)) == Open()


def test_a_volume_that_vanished_loses_the_job() -> None:
    finish = decide(job_of("a"), Pod(Shape.ABSENT), 1, ahead(2))
    assert isinstance(finish, Finish)
    assert finish.job.reason is Reason.LOST


def test_steps_are_launched_ahead_as_far_as_the_window() -> None:
    ready = dict.fromkeys(range(4), Image.READY)
    job, box = job_of("a", "b", "c", "d"), Box(Stage.RUNNING)
    assert decide(job, look(images=ready), 1, ahead(2)) == Launch(0)
    assert decide(job, look(box, images=ready), 1, ahead(2)) == Launch(1)
    assert decide(job, look(box, box, images=ready), 1, ahead(2)) == Launch(2)
    assert decide(job, look(box, box, box, images=ready), 1, ahead(2)) is None


@pytest.mark.parametrize(("setting", "running", "ahead"), [(8, 0, 8), (8, 1, 8), (8, 3, 2), (8, 20, 1), (0, 1, 0)])
def test_jobs_that_run_share_what_is_started_ahead(tmp_path: Path, setting: int, running: int, ahead: int) -> None:
    store, outputs = Doomed(MemoryStore(job_of("a")), lambda: ""), Outputs(tmp_path.as_uri())
    tools = Tools(store, FakeBackend(World({})), outputs, Settings(ahead=setting), "me", "fake", lambda: True, lambda: running)  # type: ignore[arg-type]
    assert tools.rules.ahead == ahead


def test_an_image_is_pulled_before_its_step_and_refreshed_only_at_its_turn() -> None:
    spec = parse({"steps": [{"source": "a"}, {"source": "b", "refresh": True}]})
    job = replace(new_job("J", spec, 1), phase=Phase.RUNNING, pod="pod", engine="fake")
    assert decide(job, look(), 1, ahead(2)) == Pull(0, early=False)
    assert decide(job, look(Box(Stage.RUNNING), images={0: Image.READY}), 1, ahead(2)) is None
    assert decide(job_of("a", "b"), look(Box(Stage.RUNNING), images={0: Image.READY}), 1, ahead(2)) == Pull(1, early=True)


def test_a_missing_image_counts_only_at_its_turn_and_after_another_look() -> None:
    early = Fault(Reason.IMAGE_NOT_FOUND, "no", early=True)
    runs = Box(Stage.RUNNING, claimed_at=1)
    job = fold(job_of("a", "b"), look(runs), 1)
    assert decide(job, look(runs, images={0: Image.READY, 1: early}), 1, ahead(2)) is None
    job = fold(job, look(ended()), 1)
    assert decide(job, look(ended(), images={1: early}), 1, ahead(2)) == Pull(1, early=False)
    finish = decide(job, look(ended(), images={1: replace(early, early=False)}), 1, ahead(2))
    assert isinstance(finish, Finish)
    assert (finish.job.reason, finish.job.failed) == (Reason.IMAGE_NOT_FOUND, 1)


def test_a_box_that_ended_before_it_began_is_made_again_but_not_for_ever() -> None:
    job = job_of("a")
    pod = look(Box(Stage.ENDED, 143), images={0: Image.READY})
    for _ in range(6):
        assert decide(job, pod, 1, ahead(2)) == Remake(0)
        job = remade(job, 0)
    finish = decide(job, pod, 1, ahead(2))
    assert isinstance(finish, Finish)
    assert finish.job.reason is Reason.START_FAILED


def test_a_gated_box_of_a_dead_sandbox_is_made_again() -> None:
    pod = look(Box(Stage.RUNNING, claimed_at=1), Box(Stage.RUNNING, cut_off=True), images={0: Image.READY, 1: Image.READY})
    job = fold(job_of("a", "b"), pod, 1)
    assert decide(job, pod, 1, ahead(2)) == Remake(1)


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
        (replace(CLAIMED, code=125, status=replace(WELL, exit=125, error="timed_out")), Reason.TIMED_OUT),
        (replace(CLAIMED, code=125, status=replace(WELL, exit=125, error="made up by a step")), Reason.STATUS_MISMATCH),
    ],
)
def test_each_way_to_fail_has_its_reason(box: Box, reason: Reason) -> None:
    assert fold(job_of("a"), look(box), 5).reason is reason


def test_a_step_that_removes_its_claim_does_not_run_again() -> None:
    seen_running = fold(job_of("a"), look(replace(CLAIMED, stage=Stage.RUNNING)), 5)
    assert fold(seen_running, look(Box(Stage.ENDED, 137)), 6).reason is Reason.LOST
    assert fold(seen_running, look(Box(Stage.RUNNING)), 6) == seen_running
    assert decide(seen_running, look(Box(Stage.RUNNING, cut_off=True), images={0: Image.READY}), 6, ahead(2)) is None
    with_status = fold(job_of("a"), look(Box(Stage.ENDED, 0, status=WELL)), 6)
    assert (with_status.phase, with_status.steps[0].started_at) == (Phase.COMPLETE, WELL.started_at)


def test_a_step_killed_for_memory_that_exits_0_all_the_same_is_complete() -> None:
    assert fold(job_of("a"), look(replace(CLAIMED, oom=True, status=WELL)), 5).phase is Phase.COMPLETE


def test_one_look_may_complete_several_steps() -> None:
    seen = fold(job_of("a", "b", "c"), look(ended(), ended(), replace(CLAIMED, stage=Stage.RUNNING)), 5)
    assert [state.phase for state in seen.steps] == [Phase.COMPLETE, Phase.COMPLETE, Phase.RUNNING]


def test_outputs_go_once_the_step_after_is_complete_too() -> None:
    box = replace(ended(), holds_output=True)
    gone = replace(box, stage=Stage.ABSENT)
    runs = replace(CLAIMED, stage=Stage.RUNNING)
    job = fold(job_of("a", "b", "c"), look(box, box, runs), 5)
    assert decide(job, look(box, gone, runs), 6, ahead(0)) == Tidy((0, 1), box=True, output=True)
    assert decide(job, look(replace(gone, holds_output=False), box, runs), 6, ahead(0)) == Tidy((1, 1), box=True, output=False)
    assert decide(job, look(replace(gone, holds_output=False), gone, runs), 6, ahead(0)) is None


def test_an_ended_job_is_closed_then_retired_and_a_deleted_one_forgotten() -> None:
    over = replace(job_of("a"), phase=Phase.COMPLETE)
    assert decide(over, Pod(Shape.OPEN), 1, ahead(2)) == Close()
    assert decide(over, Pod(), 1, ahead(2)) == Retire()
    assert decide(replace(over, told=Told(doomed=True)), Pod(), 1, ahead(2)) == Forget()


def test_a_deleted_job_that_waits_is_forgotten_and_one_that_runs_goes_on() -> None:
    deleted = Told(doomed=True)
    waiting = replace(job_of("a"), phase=Phase.WAITING, pod=None, told=deleted)
    assert decide(waiting, Pod(), 1, ahead(2)) == Forget()
    assert decide(job_of("a", told=deleted), look(images={0: Image.READY}), 1, ahead(2)) == Launch(0)


def test_a_record_survives_being_written_down() -> None:
    spec = JobSpec.model_validate({"steps": [{"source": "a"}, {"source": "b"}]})
    past = Past(1, Reason.LOST, None, 3, 4)
    job = replace(new_job("J", spec, 5), phase=Phase.ERROR, reason=Reason.LOST, message="m", finished_at=9, pod="p", pins=("x", "y"), stop=Reason.TIMED_OUT)
    job = job.with_step(1, StepState(attempt=2, retry_at=8, past=(past,)))
    beside = Beside(Told(cancelled=1), "me", 3, 4)
    assert Job.load("J", spec, orjson.loads(orjson.dumps(job.dump())), beside) == replace(job, **beside._asdict())


def test_a_record_of_the_first_version_can_be_read() -> None:
    kept = {"created_at": 5, "phase": "running", "pod": "p", "steps": [["complete", 1, 0, 0, 6, 7, 0, 4], ["running", 1, 0, None, 8, None, None, None]]}
    kept |= {"started_at": 6, "finished_at": None, "reason": None, "message": "", "output": None}
    job = Job.load("J", parse({"steps": [{"source": "a"}, {"source": "b"}]}), kept, Beside())
    assert (job.current, job.steps[0].bytes_out, job.steps[1].started_at, job.engine) == (1, 4, 8, None)


# --- retries


def retrying(**step: Any) -> Job:
    return running({"steps": [{"source": "a"}, {"source": "b", "retries": 2, **step}, {"source": "c"}]})


def test_a_step_with_retries_left_is_tried_again_after_a_pause_that_doubles() -> None:
    job = fold(retrying(), look(ended(), ended(3)), 5)
    assert (job.phase, job.current, job.steps[1].attempt, job.steps[1].retry_at) == (Phase.RUNNING, 1, 2, 5 + SECOND)
    assert job.steps[1].past == (Past(1, Reason.EXIT_CODE, 3, 1, WELL.finished_at),)
    again = fold(job, Pod(Shape.OPEN, {(0, 1): ended(), (1, 2): ended(4)}), 5 + SECOND)
    assert (again.steps[1].attempt, again.steps[1].retry_at) == (3, 5 + 3 * SECOND)
    last = fold(again, Pod(Shape.OPEN, {(0, 1): ended(), (1, 3): ended(5)}), 9 * SECOND)
    assert (last.phase, last.reason, last.failed, last.steps[1].exit_code) == (Phase.ERROR, Reason.EXIT_CODE, 1, 5)


def test_the_further_attempt_waits_for_its_time_while_the_steps_after_it_wait_at_their_gates() -> None:
    job = fold(retrying(), look(ended(), ended(3)), 5)
    shown = {(0, 1): replace(ended(), stage=Stage.ABSENT), (1, 1): ended(3), (2, 1): Box(Stage.RUNNING)}
    pod = Pod(Shape.OPEN, shown, {(1, 2): Image.READY, (2, 1): Image.READY}, verdicts=frozenset({0}))
    assert decide(job, pod, 6, ahead(2)) == Tidy((1, 1), box=True, output=False)
    assert due(job, 6, ahead(2)) == 5 + SECOND
    assert decide(job, pod, 5 + SECOND, ahead(2)) == Launch(1)


@pytest.mark.parametrize("reason", Reason)
def test_only_what_another_attempt_can_help_is_tried_again(reason: Reason) -> None:
    job = fold(retrying(), look(ended(), images={1: Fault(reason, "why")}), 5)
    assert (job.steps[1].attempt == 2) is MEANINGS[reason].again
    assert (job.reason is None) is MEANINGS[reason].again


def test_a_lost_attempt_counts_as_one() -> None:
    job = fold(retrying(), look(ended(), CLAIMED), 5)
    assert job.steps[1].past == (Past(1, Reason.LOST, None, 1, 5),)


def test_an_attempt_that_may_have_opened_the_next_gate_is_not_tried_again() -> None:
    job = fold(retrying(), look(ended(), replace(ended(), code=137)), 5)
    assert (job.reason, job.failed) == (Reason.LOST, 1)


# --- cancel and timeouts


def test_a_cancelled_job_is_noted_then_its_runners_are_told_then_it_ends_as_they_say() -> None:
    job, runs = job_of("a", "b", told=Told(cancelled=1)), Box(Stage.RUNNING, claimed_at=1)
    noted = decide(job, look(runs), 5, ahead(2))
    assert isinstance(noted, Save)
    assert (noted.job.stop, noted.job.stopped_at) == (Reason.CANCELLED, 5)
    stopping = fold(noted.job, look(runs), 6)
    assert decide(stopping, look(runs), 6, ahead(2)) == SetMark(Mark.STOP, "cancelled")
    assert decide(stopping, look(runs, marks=frozenset({Mark.STOP})), 6, ahead(2)) is None
    over = fold(stopping, look(ended(125, error="cancelled"), marks=frozenset({Mark.STOP})), 7)
    assert (over.phase, over.reason, over.failed) == (Phase.ERROR, Reason.CANCELLED, 0)


def test_a_step_that_ended_before_the_mark_came_counts_as_it_ended() -> None:
    stopping = job_of("a", "b", stop=Reason.CANCELLED, stopped_at=5)
    over = fold(stopping, look(ended(), Box(Stage.ENDED, 0)), 7)
    assert (over.steps[0].phase, over.steps[1].phase, over.reason, over.failed) == (Phase.COMPLETE, Phase.ERROR, Reason.CANCELLED, 1)
    assert fold(stopping, look(ended(), ended()), 7).phase is Phase.COMPLETE
    assert fold(stopping, look(ended(3)), 7).reason is Reason.EXIT_CODE


def test_a_box_at_its_gate_may_still_begin_until_it_has_seen_the_mark() -> None:
    stopping = job_of("a", stop=Reason.CANCELLED, stopped_at=5)
    assert fold(stopping, look(Box(Stage.RUNNING)), 7) == stopping
    assert fold(stopping, look(Box(Stage.MADE)), 7).reason is Reason.CANCELLED


def test_nothing_is_tried_again_in_a_job_that_is_being_stopped() -> None:
    stopping = replace(retrying(), stop=Reason.CANCELLED, stopped_at=5)
    assert fold(stopping, look(ended(), ended(3)), 7).reason is Reason.CANCELLED
    assert fold(stopping, look(ended(), CLAIMED), 7).reason is Reason.CANCELLED


def test_a_cancelled_job_that_has_no_pod_yet_makes_none() -> None:
    finish = decide(job_of("a", pod=None, engine=None, stop=Reason.CANCELLED, stopped_at=5), Pod(), 7, ahead(2))
    assert isinstance(finish, Finish)
    assert finish.job.reason is Reason.CANCELLED


def test_a_jobs_timeout_stops_it_when_the_time_has_come() -> None:
    job = running({"steps": [{"source": "a"}], "timeout": 2})
    assert due(job, 5, ahead(2)) == 1 + 2 * SECOND
    noted = decide(job, look(Box(Stage.RUNNING, claimed_at=1)), 1 + 2 * SECOND, ahead(2))
    assert isinstance(noted, Save)
    assert noted.job.stop is Reason.TIMED_OUT
    for box in (ended(125, error="timed_out"), CLAIMED):
        assert fold(noted.job, look(box), 9).message == "step 1 (a): the job took longer than its timeout"


def test_a_runner_that_does_not_stop_is_removed_by_force() -> None:
    runs, marks = Box(Stage.RUNNING, claimed_at=1), frozenset({Mark.STOP})
    stopping = fold(job_of("a", stop=Reason.CANCELLED, stopped_at=5), look(runs), 6)
    end = 5 + 25 * SECOND
    assert due(stopping, 6, ahead(2)) == end
    assert decide(stopping, look(runs, marks=marks), end - 1, ahead(2)) is None
    assert decide(stopping, look(runs, marks=marks), end, ahead(2)) == Kill((0, 1))
    late = fold(running({"steps": [{"source": "a", "timeout": 1}]}), look(runs), 6)
    assert decide(late, look(runs), 1 + 26 * SECOND, ahead(2)) == Kill((0, 1))


def test_a_held_job_has_the_mark_and_a_released_one_has_not() -> None:
    runs = Box(Stage.RUNNING, claimed_at=1)
    held = fold(job_of("a", told=Told(held=True)), look(runs), 5)
    assert decide(held, look(runs), 5, ahead(2)) == SetMark(Mark.HOLD, "")
    assert decide(held, look(runs, marks=frozenset({Mark.HOLD})), 5, ahead(2)) is None
    assert decide(replace(held, told=Told()), look(runs, marks=frozenset({Mark.HOLD})), 5, ahead(2)) == Unmark(Mark.HOLD)


# --- steps marked always


def cleaning(**changes: Any) -> Job:
    return running({"steps": [{"source": "a"}, {"source": "b"}, {"source": "c", "always": True}, {"source": "d", "always": True}]}, **changes)


def test_steps_marked_always_run_one_by_one_whatever_happened() -> None:
    well = fold(cleaning(), look(ended(), ended()), 5)
    failed = fold(cleaning(), look(ended(3)), 5)
    for job in (well, failed):
        assert (job.phase, job.current) == (Phase.RUNNING, 2)
        assert decide(job, Pod(Shape.OPEN, images={(2, 1): Image.READY, (3, 1): Image.READY}), 6, ahead(2)) == Launch(2)
    assert (failed.reason, failed.failed) == (Reason.EXIT_CODE, 0)
    over = fold(failed, Pod(Shape.OPEN, {(2, 1): ended(), (3, 1): ended()}), 6)
    assert [over.phase, *(state.phase for state in over.steps)] == [Phase.ERROR, Phase.ERROR, Phase.WAITING, Phase.COMPLETE, Phase.COMPLETE]
    assert fold(well, Pod(Shape.OPEN, {(2, 1): ended(), (3, 1): ended()}), 6).phase is Phase.COMPLETE


def test_a_failed_step_marked_always_fails_the_job_and_the_next_one_runs_all_the_same() -> None:
    job = fold(cleaning(), look(ended(), ended(), ended(4)), 5)
    assert (job.phase, job.reason, job.failed, job.current) == (Phase.RUNNING, Reason.EXIT_CODE, 2, 3)


def test_they_run_in_a_new_volume_when_the_jobs_is_gone() -> None:
    lost = decide(cleaning(), Pod(Shape.ABSENT), 5, ahead(2))
    assert isinstance(lost, Save)
    assert lost.job.reason is Reason.LOST
    assert decide(lost.job, Pod(Shape.ABSENT), 5, ahead(2)) == Open()


def test_a_cancelled_job_still_runs_them_unless_they_are_named_too() -> None:
    runs = Box(Stage.RUNNING, claimed_at=1)
    once = cleaning(told=Told(cancelled=1), stop=Reason.CANCELLED, stopped_at=5)
    job = fold(once, look(ended(125, error="cancelled"), Box(Stage.ABSENT), runs), 6)
    assert (job.reason, job.current) == (Reason.CANCELLED, 2)
    assert decide(job, look(Box(Stage.ABSENT), Box(Stage.ABSENT), runs), 6, ahead(2)) is None
    noted = decide(replace(job, told=Told(cancelled=2)), look(Box(Stage.ABSENT), Box(Stage.ABSENT), runs), 6, ahead(2))
    assert isinstance(noted, Save)
    assert noted.job.halted_at == 6
    assert decide(noted.job, look(Box(Stage.ABSENT), Box(Stage.ABSENT), runs), 6, ahead(2)) == SetMark(Mark.HALT, "cancelled")


# --- another engine


def test_an_input_is_given_before_its_step_is_launched_and_to_each_new_pod() -> None:
    job, ready = job_of("a", "b", input=Input(2, "aa")), {0: Image.READY}
    assert decide(job, look(images=ready), 1, ahead(0)) == Give()
    assert decide(job, replace(look(images=ready), given=True), 1, ahead(0)) == Launch(0)
    assert decide(replace(job, stop=Reason.CANCELLED, stopped_at=1), look(images=ready), 1, ahead(0)) != Give()
    again = inputless(moved(fold(job, look(ended()), 5), 6), 6)
    assert decide(replace(again, pod="new", engine="fake"), look(), 6, ahead(0)) == Give()


def test_an_input_goes_once_its_step_is_complete() -> None:
    pod = replace(look(replace(CLAIMED, stage=Stage.RUNNING)), given=True, holds_input=True)
    job = fold(job_of("a", "b", input=Input(2, "aa")), pod, 5)
    assert decide(job, pod, 6, ahead(0)) is None
    read = replace(look(ended(), images={1: Image.PULLING}), given=True, holds_input=True)
    assert decide(fold(job, read, 7), read, 8, ahead(0)) == TidyInput()


def test_a_job_whose_input_is_not_to_be_had_fails() -> None:
    job = unfed(job_of("a", "b", input=Input(2, "aa")), 7)
    assert (job.reason, job.failed, job.steps[0].phase) == (Reason.INPUT_DAMAGED, 0, Phase.ERROR)
    assert "DRAY_OUTPUTS" in job.message


def test_a_job_of_another_engine_goes_on_here_from_its_last_complete_step() -> None:
    there = fold(job_of("a", "b", "c"), look(ended(), replace(CLAIMED, stage=Stage.RUNNING)), 5)
    here = decide(replace(there, engine="other"), Pod(), 6, ahead(2))
    assert isinstance(here, Save)
    assert (here.job.pod, here.job.engine, here.job.current) == (None, None, 1)
    assert [state.attempt for state in here.job.steps] == [1, 2, 2], "what may have begun there unseen is not begun again here"
    assert decide(here.job, Pod(), 6, ahead(2)) == Open()
    opened = replace(here.job, pod="pod", engine="fake")
    assert decide(opened, Pod(Shape.OPEN), 6, ahead(2)) == Seed(0)
    seeded = look(Box(Stage.ABSENT, status=WELL))
    assert decide(opened, seeded, 6, ahead(2)) == Reopen(0)
    assert decide(opened, replace(seeded, verdicts=frozenset({0})), 6, ahead(2)) == Pull(1, early=False)


def test_without_its_input_it_begins_again_with_the_first_step_and_skips_none() -> None:
    there = fold(job_of("a", "b"), look(ended()), 5)
    again = inputless(moved(there, 6), 6)
    assert [(state.phase, state.attempt) for state in again.steps] == [(Phase.WAITING, 2), (Phase.WAITING, 2)]


def test_a_job_that_was_not_moved_fails_when_its_input_is_gone() -> None:
    job = inputless(fold(job_of("a", "b"), look(ended()), 5), 6)
    assert (job.reason, job.failed) == (Reason.INPUT_DAMAGED, 1)


# --- whole jobs


class Crash(BaseException):
    """The operator is killed."""


@dataclass
class MemoryStore:
    """The part of `Store` that a reconciler uses, with its promises: compare-and-set, append by cursor."""

    job: Job | None
    cursors_kept: dict[Key, Cursor] = field(default_factory=dict)
    log: dict[Key, list[bytes]] = field(default_factory=dict)
    outputs: dict[int | str, bytes] = field(default_factory=dict)
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

    def tell(self, told: Told) -> None:
        """A client told something of the job."""
        assert self.job is not None
        self.job = replace(self.job, told=told, version=self.job.version + 1)

    async def retire(self, _: Job) -> None:
        self.active = False

    async def cursors(self, _: str) -> dict[Key, Cursor]:
        return dict(self.cursors_kept)

    async def append(self, _: str, key: Key, chunk: Chunk, __: int) -> None:
        if self.cursors_kept.get(key, Cursor()) != chunk.start:
            raise Stale
        self.log.setdefault(key, []).extend(line for _, found in lines(chunk.payload) for line in found)
        self.cursors_kept[key] = chunk.end

    async def keep_output(self, _: Job, step: int, output: bytes) -> None:
        self.outputs[step] = output

    async def small_output(self, _: str, name: int | str) -> bytes | None:
        return self.outputs.get(name)

    async def stderr(self, _: str, __: Key) -> tuple[str, ...]:
        return ()


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


class Run:
    """One job, worked on by one operator after another until nothing is left to do."""

    def __init__(self, spec: dict[str, Any], root: Path, calls: list[str], pauses: list[str], ahead: int, content: bytes = b"") -> None:
        self.spec = parse(spec)
        given = Input(len(content), hashlib.sha256(content).hexdigest()) if content else None
        self.store = MemoryStore(replace(new_job("J", self.spec, 1), owner="me", input=given))
        self.store.outputs[INPUT] = content
        self.worlds = [World(programs(), "first")]
        self._outputs, self._settings = Outputs((root / "outputs").as_uri()), Settings(ahead=ahead)
        self._calls, self._pauses, self._now = Plan(calls), Plan(pauses), 0

    @property
    def world(self) -> World:
        """The engine of the operator at work: the newest."""
        return self.worlds[-1]

    @property
    def job(self) -> Job:
        assert self.store.job is not None
        return self.store.job

    async def work(self) -> None:
        while self.store.active:
            world, doomed = self.world, Doomed(self.store, self._calls.next)
            backend: Any = Doomed(FakeBackend(world), self._calls.next)
            tools = Tools(doomed, backend, self._outputs, self._settings, "me", world.name, lambda: True, lambda: 1, self._clock)  # type: ignore[arg-type]
            with suppress(Crash, Stale, Unavailable):
                await backend.start("test", "me")
                await self._operate(Reconciler("J", tools))

    def _clock(self) -> int:
        """Two seconds pass between any two looks at it."""
        self._now += 2 * SECOND
        return self._now

    async def _operate(self, reconciler: Reconciler) -> None:
        while self.store.active:
            due = await reconciler.step() or reconciler.pause is not None
            word = self._pauses.next()
            if word == "move":
                self.worlds.append(World(programs(), f"engine {len(self.worlds)}"))
                return
            if word in _TOLD and self.job.phase is Phase.RUNNING:
                self.store.tell(_TOLD[word](self.job.told))
                reconciler.forget()
            elif not self._befall(word):
                moved = self.world.advance("J")
                if not (due or moved) and self.job.told.held:
                    self.store.tell(self.job.told._replace(held=False))
                    reconciler.forget()
                    continue
                assert due or moved or not self.store.active, "nothing is due, nothing moves, and the job has not ended"

    def _befall(self, word: str) -> bool:
        """Whether the word is something that befalls the engine."""
        job, world = self.job, self.world
        current = (job.current, job.steps[job.current].attempt) if job.current < len(job.steps) else (0, 1)
        befalls: dict[str, Callable[[], object]] = {
            "kill box": lambda: world.kill("J", current),
            "kill sandbox": lambda: world.kill("J", None),
            "remove box": lambda: world.remove("J", current),
            "remove volume": lambda: world.pods.pop("J", None),
            "restart": world.restart,
        }
        if word in befalls:
            befalls[word]()
        return word in befalls


_TOLD: dict[str, Callable[[Told], Told]] = {
    "cancel": lambda told: told._replace(cancelled=max(told.cancelled, 1)),
    "cancel all": lambda told: told._replace(cancelled=2),
    "hold": lambda told: told._replace(held=True),
    "release": lambda told: told._replace(held=False),
}


def programs() -> dict[str, Program]:
    """Fresh ones: `flaky` fails at its first run and each third one after that."""
    runs = Counter[str]()

    def flaky(given: bytes) -> tuple[bytes, int]:
        runs["flaky"] += 1
        return given + b"flaky\n", int(runs["flaky"] % 3 == 1)

    return PROGRAMS | {"flaky": flaky}


QUIET = [""] * 7
DEATHS = ["kill box", "remove box", "kill sandbox", "restart", "remove volume"]
PAUSES = st.lists(st.sampled_from([*QUIET, *DEATHS]), max_size=40)
EVERYTHING = st.lists(st.sampled_from([*QUIET * 4, *DEATHS, *_TOLD, "move", "move"]), min_size=20, max_size=60)
CALLS = st.lists(st.sampled_from(["", "", "", "", "before", "after"]), max_size=120)
SOURCES = st.lists(st.sampled_from(["hello", "double", "double", "fails", "absent"]), min_size=1, max_size=5)
SOURCE = st.sampled_from(["hello", "double", "double", "flaky", "flaky", "fails"])
STEPS = st.lists(st.fixed_dictionaries({"source": SOURCE, "retries": st.integers(0, 3)}), min_size=2, max_size=5)
ALWAYS = st.lists(st.fixed_dictionaries({"source": st.sampled_from(["hello", "fails", "absent"]), "always": st.just(True)}), max_size=2)


def expected(sources: list[str], given: bytes = b"") -> tuple[Phase, Reason | None, bytes]:
    """What a job of these steps comes to when only the operator is killed."""
    for source in sources:
        if source == "absent":
            return Phase.ERROR, Reason.IMAGE_NOT_FOUND, b""
        given, code = PROGRAMS[source](given)
        if code:
            return Phase.ERROR, Reason.EXIT_CODE, b""
    return Phase.COMPLETE, None, given


def ran(run: Run) -> Run:
    asyncio.run(run.work())
    assert run.job.phase in FINAL
    assert all(count == 1 for world in run.worlds for count in world.runs.values()), "an attempt ran twice"
    assert run.world.pods == {}
    return run


def plain(sources: list[str]) -> dict[str, Any]:
    return {"steps": [{"source": source} for source in sources]}


@settings(max_examples=300, deadline=None)
@given(sources=SOURCES, calls=CALLS, ahead=st.integers(0, 3))
def test_a_killed_operator_changes_nothing_of_a_jobs_end(sources: list[str], calls: list[str], ahead: int, tmp_path_factory: Any) -> None:
    run = ran(Run(plain(sources), tmp_path_factory.getbasetemp(), calls, [], ahead))
    phase, reason, output = expected(sources)
    assert (run.job.phase, run.job.reason) == (phase, reason)
    assert phase is not Phase.COMPLETE or run.store.outputs[len(sources) - 1] == output


@settings(max_examples=300, deadline=None)
@given(sources=SOURCES, calls=CALLS, pauses=PAUSES, ahead=st.integers(0, 3))
def test_whatever_dies_a_job_ends_once_and_truthfully(sources: list[str], calls: list[str], pauses: list[str], ahead: int, tmp_path_factory: Any) -> None:
    run = ran(Run(plain(sources), tmp_path_factory.getbasetemp(), calls, pauses, ahead))
    phase, reason, output = expected(sources)
    if run.job.phase is Phase.COMPLETE:
        assert (phase, run.store.outputs[len(sources) - 1]) == (Phase.COMPLETE, output)
        assert [line for _, found in sorted(run.store.log.items()) for line in found] == b"".join(log_of(sources)).splitlines()
    else:
        assert run.job.reason in {reason, Reason.LOST, Reason.START_FAILED}


@settings(max_examples=200, deadline=None)
@given(sources=SOURCES, calls=CALLS, pauses=EVERYTHING, ahead=st.integers(0, 3))
def test_the_input_of_a_job_is_read_whole_whatever_happens(sources: list[str], calls: list[str], pauses: list[str], ahead: int, tmp_path_factory: Any) -> None:
    sources = ["double", *sources]
    run = ran(Run(plain(sources), tmp_path_factory.getbasetemp(), calls, pauses, ahead, b"given"))
    phase, _, output = expected(sources, b"given")
    assert run.job.phase is not Phase.COMPLETE or (phase, run.store.outputs[len(sources) - 1]) == (Phase.COMPLETE, output)
    assert run.job.steps[0].bytes_in in (None, 5)


@settings(max_examples=400, deadline=None)
@given(steps=STEPS, last=ALWAYS, calls=CALLS, pauses=EVERYTHING, ahead=st.integers(0, 3))
def test_retried_cancelled_held_and_moved_jobs_end_truthfully_too(
    steps: list[dict[str, Any]], last: list[dict[str, Any]], calls: list[str], pauses: list[str], ahead: int, tmp_path_factory: Any
) -> None:
    run = ran(Run({"steps": [*steps, *last]}, tmp_path_factory.getbasetemp(), calls, pauses, ahead))
    piped, after = run.job.steps[: len(steps)], run.job.steps[len(steps) :]
    begun = next((i for i, state in enumerate(piped) if state.phase is not Phase.COMPLETE), len(piped))
    assert all(state.phase is Phase.WAITING for state in piped[begun + 1 :]), "a step ran after one that failed"
    assert all(state.phase in FINAL for state in after), "a step marked always was left out"
    assert (run.job.phase is Phase.COMPLETE) is all(state.phase is Phase.COMPLETE for state in run.job.steps)
    assert (run.job.reason is None) is (run.job.phase is Phase.COMPLETE)
    assert run.job.reason is not Reason.CANCELLED or run.job.told.cancelled
    if run.job.phase is Phase.COMPLETE:
        assert run.store.outputs[len(steps) - 1] == _piped([step["source"] for step in steps])


def _piped(sources: list[str]) -> bytes:
    given = b""
    for source in sources:
        given = given + b"flaky\n" if source == "flaky" else PROGRAMS[source](given)[0]
    return given


def log_of(sources: list[str]) -> list[bytes]:
    given, log = b"", []
    for source in sources:
        given, _ = PROGRAMS[source](given)
        log.append(given)
    return log
