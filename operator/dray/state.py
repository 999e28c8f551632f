"""The whole state machine of a job, and no I/O.

A job is a pod: a volume, a sandbox that owns the network, and one box (a step's container) for each step, started ahead
of its turn and held by a gate until the step before has ended well. The boxes chain themselves through the volume; so
what really happened lies there, and the record follows it. Each pass over a job

    fold    brings the record up to what the pod shows: which steps have begun, ended, failed;
    decide  names the one next thing to do, given the record and the pod. First fit wins; None: nothing, until a wake-up.

What a box shows of an attempt, and what it means (the table is printed into docs/architecture.md from `MEANING`):
a *claim* was written just before the command was executed, a *status* after its output was complete. An attempt
without a claim never ran and is made again freely; one with a claim but no status, and its container gone, is lost.
The status stands in the job's own volume, so it counts only together with the same exit code from the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from dray.spec import JobSpec

MAX_REMADE = 5  # times an attempt's box may end before it began


class Phase(StrEnum):
    """Of a job, and of a step. A job's first two are both `running` in Dray's JSON."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    ERROR = "error"


FINAL = frozenset({Phase.COMPLETE, Phase.ERROR})


class Reason(StrEnum):
    """Why a job ended in error. One fixed list, the same words on every backend."""

    EXIT_CODE = "exit_code"
    OUT_OF_MEMORY = "out_of_memory"
    IMAGE_NOT_FOUND = "image_not_found"
    IMAGE_PULL_FAILED = "image_pull_failed"
    START_FAILED = "start_failed"
    OUTPUT_MISSING = "output_missing"
    DATA_LIMIT = "data_limit"
    DISK_FULL = "disk_full"
    INPUT_DAMAGED = "input_damaged"
    STATUS_MISMATCH = "status_mismatch"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class StepState:
    """How far one step is. Times in microseconds since the epoch; bytes of the whole input and output."""

    phase: Phase = Phase.WAITING
    attempt: int = 1
    remade: int = 0
    exit_code: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """The record. `pod` names what the backend made for it (None: nothing yet); `version` counts its saves.

    `doomed`: a client deleted it. What runs goes on to its end, nothing more is recorded, and then all of it goes.
    `output`: bytes of the last step's output, once it is kept.
    """

    id: str
    spec: JobSpec
    created_at: int
    phase: Phase = Phase.WAITING
    pod: str | None = None
    steps: tuple[StepState, ...] = ()
    started_at: int | None = None
    finished_at: int | None = None
    reason: Reason | None = None
    message: str = ""
    output: int | None = None
    doomed: bool = False
    version: int = 0

    @property
    def current(self) -> int:
        """The first step that is not complete; the number of steps when all are."""
        return next((step for step, state in enumerate(self.steps) if state.phase is not Phase.COMPLETE), len(self.steps))

    def dump(self) -> dict[str, Any]:
        """What changes, as JSON values; the spec, the id and the version are kept beside it."""
        return {
            "created_at": self.created_at,
            "phase": self.phase,
            "pod": self.pod,
            "steps": [[getattr(state, name) for name in _STEP_FIELDS] for state in self.steps],
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "reason": self.reason,
            "message": self.message,
            "output": self.output,
        }

    @classmethod
    def load(cls, job_id: str, spec: JobSpec, state: dict[str, Any], version: int, doomed: bool) -> Job:
        steps = tuple(StepState(Phase(phase), *rest) for phase, *rest in state["steps"])
        reason = Reason(state["reason"]) if state["reason"] else None
        rest = {name: state[name] for name in ("created_at", "pod", "started_at", "finished_at", "message", "output")}
        return cls(id=job_id, spec=spec, phase=Phase(state["phase"]), steps=steps, reason=reason, version=version, doomed=doomed, **rest)


_STEP_FIELDS = tuple(StepState.__dataclass_fields__)


def new_job(job_id: str, spec: JobSpec, now: int) -> Job:
    return Job(job_id, spec, now, steps=(StepState(),) * len(spec.steps))


# --- what a backend shows --------------------------------------------------------------------------------------------


class Stage(StrEnum):
    """Of a step's container, in the engine's word."""

    MADE = "made"  # created, not started
    RUNNING = "running"
    ENDED = "ended"
    ABSENT = "absent"  # no container, only traces in the volume


@dataclass(frozen=True, slots=True)
class Status:
    """What the runner wrote at an attempt's end (docs/protocol.md, N.A.status). `code` is -1 when a signal ended it."""

    exit: int
    code: int
    signal: int
    error: str
    errno: int
    bytes_in: int
    bytes_out: int
    started_at: int
    finished_at: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """One attempt of one step: its container as the engine shows it and its traces in the volume.

    `code`, `oom`: the engine's word on how it ended. `claimed_at`: when the command began. `cut_off`: it belongs to a
    sandbox that is no more, so it has no network. `holds_output`: its output still lies in the volume.
    """

    stage: Stage
    code: int | None = None
    oom: bool = False
    claimed_at: int | None = None
    status: Status | None = None
    cut_off: bool = False
    holds_output: bool = False


class Shape(StrEnum):
    """Of a job's pod. Only when it is OPEN are the traces in its volume known."""

    ABSENT = "absent"  # no volume
    SHUT = "shut"  # a volume, but no running sandbox
    OPEN = "open"


class Image(StrEnum):
    """Of a step's image, as far as this operator knows."""

    PULLING = "pulling"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Fault:
    """A step that cannot be run, as the backend found. `early`: found before the step's turn, so worth another look."""

    reason: Reason
    message: str
    early: bool = False


@dataclass(frozen=True)
class Pod:
    """All that stands for one job: boxes by (step, attempt), images by step (absent: not asked for yet).

    A fault among the images bars its step: the image cannot be had, or the engine will not start it.
    """

    shape: Shape = Shape.ABSENT
    boxes: Mapping[tuple[int, int], Box] = field(default_factory=dict)
    images: Mapping[int, Image | Fault] = field(default_factory=dict)


# --- what to do ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Save:
    """Record this."""

    job: Job


@dataclass(frozen=True, slots=True)
class Open:
    """Make the pod's volume and sandbox, or the sandbox again."""


@dataclass(frozen=True, slots=True)
class Pull:
    """Have the step's image on the engine. `early`: its turn has not come."""

    step: int
    early: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """Create the step's box and start it behind its gate."""

    step: int


@dataclass(frozen=True, slots=True)
class Remake:
    """Remove a box that never began, so that it is made again."""

    step: int


@dataclass(frozen=True, slots=True)
class Tidy:
    """Remove a complete step's box, and its output where the step after is complete too."""

    step: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Keep the log's rest and, of a complete job, the last output; then record the end."""

    job: Job


@dataclass(frozen=True, slots=True)
class Close:
    """Remove the whole pod."""


@dataclass(frozen=True, slots=True)
class Retire:
    """Nothing is left to do for this job."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the record of a deleted job, its log and its output."""


Action = Save | Open | Pull | Launch | Remake | Tidy | Finish | Close | Retire | Forget


def decide(job: Job, pod: Pod, now: int, ahead: int) -> Action | None:
    """The next thing to do. `now`: microseconds since the epoch; `ahead`: how many steps after the current one are started early."""
    if job.phase in FINAL or (job.doomed and job.phase is Phase.WAITING):
        if pod.shape is not Shape.ABSENT or pod.boxes:
            return Close()
        return Forget() if job.doomed else Retire()
    if job.phase is Phase.WAITING:
        return Save(replace(job, phase=Phase.RUNNING, started_at=now))
    if job.pod is None:
        return Open()
    if pod.shape is Shape.ABSENT:
        return Finish(_failed(job, job.current, now, Reason.LOST, "the job's volume is gone"))
    if pod.shape is Shape.SHUT:
        return Open()
    seen = fold(job, pod, now)
    if seen.phase in FINAL:
        return Finish(seen)
    if seen != job:
        return Save(seen)
    return _launch(job, pod, ahead) or _tidy(job, pod)


def fold(job: Job, pod: Pod, now: int) -> Job:
    """The record, brought up to what an open pod shows."""
    for step in range(job.current, len(job.steps)):
        state = job.steps[step]
        box = pod.boxes.get((step, state.attempt), Box(Stage.ABSENT))
        began_at = _began_at(state, box)
        if began_at is None and box.stage is Stage.ENDED and box.code not in _AT_THE_GATE:
            return _failed(
                job,
                step,
                now,
                Reason.LOST,
                f"it ended with exit code {box.code}, and of its beginning nothing stands in the job's volume: removed, or the disk is full",
            )
        if began_at is None:
            return _not_begun(job, step, pod, now)
        job = _with_step(job, step, replace(state, phase=Phase.RUNNING, started_at=began_at))
        if box.stage in (Stage.RUNNING, Stage.MADE):  # MADE: the engine was asked just before it started
            return job
        fault = _judge(box)
        if fault is not None:
            return _failed(job, step, now, fault.reason, fault.message, box.status)
        assert box.status is not None  # _judge: an attempt without one is lost
        job = _with_step(job, step, _ended(job.steps[step], Phase.COMPLETE, box.status))
    return replace(job, phase=Phase.COMPLETE, finished_at=now)


_AT_THE_GATE = (None, 128 + 1, 128 + 2, 128 + 3, 128 + 15, 137, 255)
"""How a box whose turn has come may end before its command began: by a signal, or unseen by the engine."""


def _began_at(state: StepState, box: Box) -> int | None:
    """When the attempt's command began; None: it has not. A step can remove its claim: what the record or a status says counts as much."""
    if box.claimed_at is not None:
        return box.claimed_at
    return box.status.started_at if box.status else state.started_at


def _not_begun(job: Job, step: int, pod: Pod, now: int) -> Job:
    """A step whose turn has come but that has not begun: only now does a fault of its image, or of its box, count."""
    if job.steps[step].remade > MAX_REMADE:
        return _failed(job, step, now, Reason.START_FAILED, f"the step's container ended {MAX_REMADE} times before its command began")
    fault = pod.images.get(step)
    if isinstance(fault, Fault) and not fault.early:
        return _failed(job, step, now, fault.reason, fault.message)
    return job


MEANING = {
    "no claim": "has not begun: its container is made again if it is gone",
    "no claim, and an exit code that no gate has": "lost: it removed what it had noted",
    "claim, container running": "runs",
    "claim, no status, container gone": "lost; out_of_memory where the engine says so",
    "claim and status, no container to ask": "lost",
    "claim and status, the engine killed it or did not see its end": "lost",
    "claim and status, the engine reports another exit code": "status_mismatch",
    "claim and status 0, the engine agrees": "complete",
    "claim and another status, the engine agrees": "the status's reason: exit_code, out_of_memory, output_missing, …",
}
"""What a box shows of an attempt → what that means."""


_LOST_TRACK = (None, 137, 255)
"""What an engine reports of a container whose end it did not see (255: Docker after a restart) or that it killed."""


def _judge(box: Box) -> Fault | None:
    """How a begun attempt whose container no longer runs has ended; None: well."""
    status = box.status
    if status is None and box.oom:
        return Fault(Reason.OUT_OF_MEMORY, "the engine killed the whole step for memory")
    if status is None:
        return Fault(Reason.LOST, "its container ended without a status" if box.stage is Stage.ENDED else "its container is gone")
    if box.stage is not Stage.ENDED:
        return Fault(Reason.LOST, "its container is gone before the engine could confirm its exit code")
    if box.code != status.exit:
        reason = Reason.LOST if box.code in _LOST_TRACK else Reason.STATUS_MISMATCH
        return Fault(reason, f"the runner noted exit code {status.exit}, the engine {box.code}")
    if status.error:
        reason, words = _RUNNER_ERRORS.get(status.error, (Reason.STATUS_MISMATCH, "its status is not one the runner writes"))
        return Fault(reason, words.format(errno=status.errno))
    if status.exit == 0:
        return None
    if box.oom:
        return Fault(Reason.OUT_OF_MEMORY, "the engine killed a process of the step for memory")
    how = f"killed by signal {status.signal}" if status.signal else f"exit code {status.code}"
    return Fault(Reason.EXIT_CODE, how)


_RUNNER_ERRORS = {
    "exec": (Reason.START_FAILED, "the image's command could not be executed (errno {errno})"),
    "input": (Reason.INPUT_DAMAGED, "the output of the step before is not as long as it was when it ended"),
    "output_missing": (Reason.OUTPUT_MISSING, "the output file was removed or is no regular file (errno {errno})"),
    "data_limit": (Reason.DATA_LIMIT, "the job's outputs together passed the cap on a job's data"),
    "disk_floor": (Reason.DISK_FULL, "free disk space fell below the floor kept on the engine"),
    "write": (Reason.DISK_FULL, "output or log could not be written (errno {errno})"),
}


def _launch(job: Job, pod: Pod, ahead: int) -> Action | None:
    """The next box to have: the current step's, then those `ahead` of it as far as their images allow."""
    for step in range(job.current, min(job.current + ahead + 1, len(job.steps))):
        early = step > job.current
        if early and job.spec.steps[step].refresh:
            return None  # its image is the one of the moment its turn comes
        box = pod.boxes.get((step, job.steps[step].attempt))
        if box is not None and _began_at(job.steps[step], box) is None and (box.cut_off or (box.stage is Stage.ENDED and not early)):
            return Remake(step)
        if box is not None and box.stage is not Stage.MADE:
            continue
        image = pod.images.get(step)
        if image is None or (isinstance(image, Fault) and image.early and not early):
            return Pull(step, early)
        if image is Image.READY:
            return Launch(step)
    return None


def _tidy(job: Job, pod: Pod) -> Action | None:
    for step in range(job.current):
        box = pod.boxes.get((step, job.steps[step].attempt))
        if box is not None and (box.stage is not Stage.ABSENT or (box.holds_output and step + 1 < job.current)):
            return Tidy(step)
    return None


def _failed(job: Job, step: int, now: int, reason: Reason, message: str, status: Status | None = None) -> Job:
    state = job.steps[step]
    ended = _ended(state, Phase.ERROR, status) if status else replace(state, phase=Phase.ERROR, finished_at=now)
    job = _with_step(job, step, ended)
    return replace(job, phase=Phase.ERROR, finished_at=now, reason=reason, message=f"{step_label(job.spec, step)}: {message}")


def spoiled(job: Job, now: int) -> Job:
    """The record of a job that would be complete, had its last output not been changed after its step ended."""
    return _failed(job, len(job.steps) - 1, now, Reason.OUTPUT_MISSING, "its output was changed or removed after it had ended")


def _ended(state: StepState, phase: Phase, status: Status) -> StepState:
    code = None if status.error else status.exit
    return replace(state, phase=phase, exit_code=code, finished_at=status.finished_at, bytes_in=status.bytes_in, bytes_out=status.bytes_out)


def _with_step(job: Job, step: int, state: StepState) -> Job:
    return replace(job, steps=(*job.steps[:step], state, *job.steps[step + 1 :]))


def step_label(spec: JobSpec, step: int) -> str:
    """`step 2 (uppercase)`: how a step is called where people read; counted from 1."""
    name = spec.steps[step].name or spec.steps[step].source
    return f"step {step + 1} ({name})"


def remade(job: Job, step: int) -> Job:
    """The record after the box of a step that had not begun was removed once more."""
    state = job.steps[step]
    return _with_step(job, step, replace(state, remade=state.remade + 1))
