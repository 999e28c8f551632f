"""The whole state machine of a job, and no I/O.

A job is a pod: a volume, a sandbox that owns the network, and one box (a step's container) for each step, started ahead
of its turn and held by a gate until the step before has ended well. The boxes chain themselves through the volume; so
what really happened lies there, and the record follows it. Each pass over a job

    fold    brings the record up to what the pod shows: which steps have begun, ended, failed;
    decide  names the one next thing to do, given the record and the pod. First fit wins; None: nothing, until a wake-up
            or until `due`.

What a box shows of an attempt: a *claim*, written just before the command was executed, and a *status*, after its output
was complete. An attempt without a claim never ran and is made again freely; how one with a claim has ended is `judge`'s
to say.

A job has two parts: the piped steps, then those marked `always`. Once the outcome of the first part is known (all
complete, or `job.reason` is set) the second begins. What stops a part is a mark in the volume, `stop` or `halt`, which
the runners heed: so nothing is cut off unseen, and a step that ended before the mark came counts as it ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dray.action import (
    Action,
    Close,
    Finish,
    Forget,
    Give,
    Kill,
    Launch,
    Open,
    Pull,
    Remake,
    Renew,
    Reopen,
    Retire,
    Save,
    Seed,
    SetMark,
    Tidy,
    TidyInput,
    Unmark,
)
from dray.clock import SECOND
from dray.judge import judge
from dray.pod import Box, Fault, Image, Mark, Pod, Shape, Stage, Status
from dray.reason import MEANINGS, Reason
from dray.record import FINAL, Job, Past, Phase, StepState, step_label

MAX_REMADE = 5  # times an attempt's box may end before it began
_FIRST_PAUSE, _LAST_PAUSE = 1 * SECOND, 60 * SECOND  # before the first further attempt, doubled up to the last
_OVERDUE = 15 * SECOND  # after which a box whose runner does not do as it was told is removed by force


@dataclass(frozen=True, slots=True)
class Rules:
    """`ahead`: how many steps after the current one are started early. `grace`: microseconds from TERM to KILL. `engine`: the one here."""

    ahead: int
    grace: int
    engine: str


# --- what to do ------------------------------------------------------------------------------------------------------


def decide(job: Job, pod: Pod, now: int, rules: Rules) -> Action | None:
    """The next thing to do. `now`: microseconds since the epoch."""
    if job.phase in FINAL or (job.told.doomed and job.phase is Phase.WAITING):
        if pod.shape is not Shape.ABSENT or pod.boxes or pod.gone is not None:
            return Close()
        return Forget() if job.told.doomed else Retire()
    if job.phase is Phase.WAITING:
        return Save(replace(job, phase=Phase.RUNNING, started_at=now))
    if job.engine not in (None, rules.engine):
        return Save(moved(job, now))
    stopping = _stopping(job, now)
    if stopping is not None:
        return Save(stopping)
    return _run(job, pod, now, rules)


def _run(job: Job, pod: Pod, now: int, rules: Rules) -> Action | None:
    """Of a job that runs, on this engine, with what is to be stopped noted in its record."""
    if job.pod is None and not (job.stop and not job.piped_over):
        return Open()
    if job.pod is not None and pod.gone is not None and job.current < len(job.steps):
        return Save(_without_pod(job, pod, pod.gone, now))
    if pod.shape in (Shape.OPENING, Shape.GOING) and job.current < len(job.steps) and not _stopped(job, job.current):
        return None
    if pod.shape is Shape.SHUT or (pod.shape is Shape.ABSENT and job.piped_over and pod.gone is None):
        return Open()
    seen = fold(job, pod, now)
    if seen.phase in FINAL:
        return Finish(seen)
    if seen != job:
        return Save(seen)
    return _mark(job, pod) or _renew(job, pod, now) or _seed(job, pod) or _kill(job, pod, now, rules) or _launch(job, pod, now, rules.ahead) or _tidy(job, pod)


def due(job: Job, now: int, rules: Rules) -> int | None:
    """When `decide` may say something else for no other reason than the time."""
    if job.phase is not Phase.RUNNING:
        return None
    return min((time for time in _times(job, rules) if time > now), default=None)


def _times(job: Job, rules: Rules) -> Iterator[int]:
    if not job.piped_over and not job.stop and job.spec.timeout and job.started_at:
        yield job.started_at + _microseconds(job.spec.timeout)
    if job.current < len(job.steps):
        state = job.steps[job.current]
        if state.retry_at:
            yield state.retry_at
        end = _overdue(job, job.current, rules)
        if end:
            yield end


# --- the record, brought up to what the pod shows --------------------------------------------------------------------


def fold(job: Job, pod: Pod, now: int) -> Job:
    """The record, brought up to what an open pod shows, or to there being no pod any more."""
    while (step := job.current) < len(job.steps):
        if pod.shape is Shape.ABSENT and job.piped_over:
            return job  # what is marked always runs in a new pod
        seen = _fold_step(job, step, pod, now)
        if seen.current == step and seen.steps[step].phase not in FINAL:
            return seen
        job = seen
    return replace(job, phase=Phase.ERROR if job.reason else Phase.COMPLETE, finished_at=now)


def _fold_step(job: Job, step: int, pod: Pod, now: int) -> Job:
    """One step further, if its attempt has ended; else as far as it is."""
    state = job.steps[step]
    box = pod.boxes.get((step, state.attempt), Box(Stage.ABSENT))
    if pod.shape is Shape.ABSENT:
        stopped = _stopped(job, step)
        return _failed(job, step, now, stopped or Fault(Reason.LOST, "the job's volume is gone"))
    if _began_at(state, box) is None:
        return _fold_waiting(job, step, box, pod, now)
    job = job.with_step(step, replace(state, phase=Phase.RUNNING, started_at=_began_at(state, box)))
    if box.stage in (Stage.RUNNING, Stage.MADE):  # MADE: the engine was asked just before it started
        return job
    fault = judge(box)
    if fault is not None:
        return _after(job, step, fault, box.status, now)
    assert box.status is not None  # judge: an attempt without one is lost
    return job.with_step(step, _ended(job.steps[step], Phase.COMPLETE, box.status))


def _fold_waiting(job: Job, step: int, box: Box, pod: Pod, now: int) -> Job:
    """A step whose turn has come but that has not begun: only now does a fault of its image, or of its box, count."""
    state = job.steps[step]
    stopped = _stopped(job, step)
    if pod.shape is Shape.OPENING and stopped is None:
        return job
    if stopped is not None:
        return job if box.stage is Stage.RUNNING else _failed(job, step, now, stopped)  # running: it may yet begin before it sees the mark
    if box.stage is Stage.ENDED and box.code not in _AT_THE_GATE:
        words = f"it ended with exit code {box.code}, and of its beginning nothing stands in the job's volume: removed, or the disk is full"
        return _failed(job, step, now, Fault(Reason.LOST, words))
    if state.remade > MAX_REMADE:
        return _failed(job, step, now, Fault(Reason.START_FAILED, f"the step's container ended {MAX_REMADE} times before its command began"))
    fault = pod.images.get((step, state.attempt))
    if isinstance(fault, Fault) and not fault.early:
        return _after(job, step, fault, None, now)
    return job


_AT_THE_GATE = (None, 128 + 1, 128 + 2, 128 + 3, 128 + 15, 137, 255)
"""How a box whose turn has come may end before its command began: by a signal, or unseen by the engine."""


def _began_at(state: StepState, box: Box) -> int | None:
    """When the attempt's command began; None: it has not. A step can remove its claim: what the record or a status says counts as much."""
    if box.claimed_at is not None:
        return box.claimed_at
    return box.status.started_at if box.status else state.started_at


# --- how a step fails ------------------------------------------------------------------------------------------------


def _after(job: Job, step: int, fault: Fault, status: Status | None, now: int) -> Job:
    """What follows on an attempt that failed: another one, while the step has retries left and one can help; else the step's failure.

    Nothing is begun again in a part that is being stopped: there, what would be tried again, and what went away, ends for that reason.
    Nor after a status that says all is well, though the engine cannot confirm it: by then the next step may have begun.
    """
    state = job.steps[step]
    opened = status is not None and status.exit == 0
    again = MEANINGS[fault.reason].again and len(state.past) < job.spec.steps[step].retries and not opened
    stopped = _stopped(job, step)
    if stopped is not None and (again or fault.reason in (Reason.LOST, Reason.CANCELLED, Reason.TIMED_OUT)):
        return _failed(job, step, now, stopped, status)
    if not again:
        return _failed(job, step, now, fault, status)
    pause = min(_FIRST_PAUSE * 2 ** len(state.past), _LAST_PAUSE)
    return job.with_step(step, _next_attempt(state, fault.reason, status, now, now + pause))


def _next_attempt(state: StepState, reason: Reason, status: Status | None, now: int, retry_at: int) -> StepState:
    code = status.exit if status and not status.error else None
    past = Past(state.attempt, reason, code, state.started_at, status.finished_at if status else now)
    return StepState(attempt=state.attempt + 1, retry_at=retry_at, past=(*state.past, past))


def _failed(job: Job, step: int, now: int, fault: Fault, status: Status | None = None) -> Job:
    """The step has failed for good. The first such step decides the job's outcome."""
    state = job.steps[step]
    ended = _ended(state, Phase.ERROR, status) if status else replace(state, phase=Phase.ERROR, finished_at=now)
    job = job.with_step(step, ended)
    if job.reason is not None:
        return job
    return replace(job, reason=fault.reason, message=f"{step_label(job.spec, step)}: {fault.message}", failed=step)


def _ended(state: StepState, phase: Phase, status: Status) -> StepState:
    code = None if status.error else status.exit
    ended = replace(state, phase=phase, exit_code=code, finished_at=status.finished_at)
    return replace(ended, bytes_in=status.bytes_in, bytes_out=status.bytes_out, sha256=status.sha256)


def spoiled(job: Job, now: int, gone: Fault | None) -> Job:
    """The record of a job that would be complete, had its last output not been changed after its step ended, or `gone` with its pod."""
    changed = Fault(Reason.OUTPUT_MISSING, "its output was changed or removed after it had ended")
    failed = _failed(job, job.spec.pipe - 1, now, gone or changed)
    return replace(failed, phase=Phase.ERROR, finished_at=now)


def remade(job: Job, step: int) -> Job:
    """The record after the box of a step that had not begun was removed once more."""
    state = job.steps[step]
    return job.with_step(step, replace(state, remade=state.remade + 1))


# --- stopping --------------------------------------------------------------------------------------------------------


def _stopping(job: Job, now: int) -> Job | None:
    """The record with the reason to stop that has come up since; None: none has."""
    if job.piped_over:
        return replace(job, halted_at=now) if job.told.cancelled > 1 and job.halted_at is None else None
    if job.stop:
        return None
    if job.told.cancelled:
        return replace(job, stop=Reason.CANCELLED, stopped_at=now)
    late = job.spec.timeout is not None and job.started_at is not None and now >= job.started_at + _microseconds(job.spec.timeout)
    return replace(job, stop=Reason.TIMED_OUT, stopped_at=now) if late else None


def _stopped(job: Job, step: int) -> Fault | None:
    """Why the step's part of the job is being stopped; None: it is not."""
    if step >= job.spec.pipe:
        return Fault(Reason.CANCELLED, "the job was cancelled") if job.halted_at else None
    if job.stop is None:
        return None
    return Fault(job.stop, "the job was cancelled" if job.stop is Reason.CANCELLED else "the job took longer than its timeout")


def _mark(job: Job, pod: Pod) -> Action | None:
    """The marks as they should be. `hold` makes no difference to what is being stopped."""
    if job.stop and not job.piped_over and Mark.STOP not in pod.marks:
        return SetMark(Mark.STOP, job.stop)
    if job.halted_at and Mark.HALT not in pod.marks:
        return SetMark(Mark.HALT, Reason.CANCELLED)
    if job.told.held is not (Mark.HOLD in pod.marks):
        return SetMark(Mark.HOLD, "") if job.told.held else Unmark(Mark.HOLD)
    return None


def _kill(job: Job, pod: Pod, now: int, rules: Rules) -> Action | None:
    """A runner that does not do as it was told is removed by force."""
    step = job.current
    key = (step, job.steps[step].attempt)
    end = _overdue(job, step, rules)
    running = key in pod.boxes and pod.boxes[key].stage is Stage.RUNNING
    return Kill(key) if running and end and now >= end else None


def _overdue(job: Job, step: int, rules: Rules) -> int | None:
    """When its box should have ended long ago."""
    state, timeout = job.steps[step], job.spec.steps[step].timeout
    told_at = job.halted_at if step >= job.spec.pipe else job.stopped_at
    ends = [told_at] if told_at else []
    if timeout and state.started_at:
        ends.append(state.started_at + _microseconds(timeout))
    return min(ends) + rules.grace + _OVERDUE if ends else None


def _microseconds(seconds: float) -> int:
    return round(seconds * SECOND)


# --- another engine --------------------------------------------------------------------------------------------------


def moved(job: Job, now: int) -> Job:
    """The record of a job whose engine is gone, to go on with a new pod: nothing of the old one is known any more.

    The current step, and those after it that were started ahead, may have begun there unseen: each gets a new attempt.
    """
    for step in range(job.current, len(job.steps)):
        state = job.steps[step]
        job = job.with_step(step, _next_attempt(state, Reason.LOST, None, now, now))
    return replace(job, pod=None, engine=None)


def inputless(job: Job, now: int) -> Job:
    """The record of a job whose current step's input is kept nowhere. One that was moved begins again with its first step, each in a new attempt."""
    if job.pods:
        return _failed(job, job.current, now, Fault(Reason.LOST, "the job's pod went away, and the output of the step before is kept nowhere else"))
    if not any(past.reason is Reason.LOST for past in job.steps[job.current].past):
        return _failed(job, job.current, now, Fault(Reason.INPUT_DAMAGED, "the output of the step before is gone from the job's volume and kept nowhere else"))
    for step in range(job.current):
        job = job.with_step(step, _next_attempt(job.steps[step], Reason.LOST, None, now, now))
    return job


def unfed(job: Job, now: int) -> Job:
    """The record of a job whose input is not to be had, or not as it came."""
    words = "the job's input is damaged, or not in the output store of the operator that runs it (DRAY_OUTPUTS)"
    return _failed(job, 0, now, Fault(Reason.INPUT_DAMAGED, words))


def _seed(job: Job, pod: Pod) -> Action | None:
    """The first step needs the job's input; a new pod of a job that goes on in its middle the output of the step before, and the word that it ended well."""
    before = job.current - 1
    if job.current >= job.spec.pipe or job.stop or job.steps[job.current].started_at is not None:
        return None
    if job.current == 0:
        return None if job.input is None or pod.given else Give()
    box = pod.boxes.get((before, job.steps[before].attempt))
    if box is None or box.status is None:
        return Seed(before)
    return None if before in pod.verdicts else Reopen(before)


# --- a pod that went away, or takes no further attempt ---------------------------------------------------------------


def _without_pod(job: Job, pod: Pod, gone: Fault, now: int) -> Job:
    """What follows on the end of a pod, and of all that lay in it: a new one, where no attempt had begun or the step has retries left.

    As where an engine is gone, those after the current step that were started ahead may have begun unseen: each gets a new attempt.
    """
    step, state = job.current, job.steps[job.current]
    stopped = _stopped(job, step)
    if stopped is not None:
        return _failed(job, step, now, stopped)
    began = state.started_at is not None or (step, state.attempt) in pod.boxes
    if not began and gone.reason in _TAKEN and job.pods < MAX_REMADE + len(state.past):
        return renewed(job)
    again = _after(job, step, gone, None, now)
    if again.steps[step].phase in FINAL:
        return again
    for later in range(step + 1, len(job.steps)):
        if (later, job.steps[later].attempt) in pod.boxes:
            again = again.with_step(later, _next_attempt(job.steps[later], Reason.LOST, None, now, now))
    return renewed(again)


_TAKEN = (Reason.LOST, Reason.EVICTED, Reason.DISK_FULL)
"""How a pod goes away that was up, or on its way."""


def renewed(job: Job) -> Job:
    """The record of a job that goes on in a new pod."""
    return replace(job, pod=None, pods=job.pods + 1)


def _renew(job: Job, pod: Pod, now: int) -> Action | None:
    step, state = job.current, job.steps[job.current]
    box = pod.boxes.get((step, state.attempt), Box(Stage.ABSENT))
    if step not in pod.spent or _began_at(state, box) is not None or _stopped(job, step) or (state.retry_at and now < state.retry_at):
        return None
    if job.pods >= MAX_REMADE + len(state.past):
        return Save(_failed(job, step, now, Fault(Reason.START_FAILED, f"the step's container ended {MAX_REMADE} times before its command began")))
    return Renew(step - 1 if 0 < step < job.spec.pipe else None)


# --- boxes -----------------------------------------------------------------------------------------------------------


def _launch(job: Job, pod: Pod, now: int, ahead: int) -> Action | None:
    """The next box to have: the current step's, then those `ahead` of it as far as their images allow."""
    if _stopped(job, job.current):
        return None
    past = job.current + 1 if job.piped_over else min(job.current + ahead + 1, job.spec.pipe)
    for step in range(job.current, past):
        state, early = job.steps[step], step > job.current
        if early and job.spec.steps[step].refresh:
            return None  # its image is the one of the moment its turn comes
        box = pod.boxes.get((step, state.attempt))
        if box is not None and _began_at(state, box) is None and (box.cut_off or (box.stage is Stage.ENDED and not early)):
            return Remake(step)
        if (box is not None and box.stage is not Stage.MADE) or (state.retry_at and now < state.retry_at):
            continue
        image = pod.images.get((step, state.attempt))
        if image is None or (isinstance(image, Fault) and image.early and not early):
            return Pull(step, early)
        if image is Image.READY:
            return Launch(step)
    return None


def _tidy(job: Job, pod: Pod) -> Action | None:
    """What ended attempts left: their boxes; outputs of failed ones; of complete ones, and the input, once the step after is complete too."""
    if pod.holds_input and job.steps[0].phase is Phase.COMPLETE:
        return TidyInput()
    for (step, attempt), box in sorted(pod.boxes.items()):
        if not job.had((step, attempt)):
            continue  # a step made files of that name
        state = job.steps[step]
        superseded = attempt < state.attempt
        if not superseded and state.phase is not Phase.COMPLETE:
            continue
        used = step < job.spec.pipe - 1 and (step + 1 < job.current or job.piped_over)
        output = box.holds_output and (superseded or used or step >= job.spec.pipe)
        if box.stage is not Stage.ABSENT or output:
            return Tidy((step, attempt), box.stage is not Stage.ABSENT, output)
    return None
