"""The record of a job: what is kept of it in Redis, and what follows from that alone. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from dray.reason import Reason
from dray.spec import JobSpec


class Phase(StrEnum):
    """Of a job, and of a step. A job's first two are both `running` in Dray's JSON."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    ERROR = "error"


FINAL = frozenset({Phase.COMPLETE, Phase.ERROR})


class Past(NamedTuple):
    """An attempt that failed and was followed by another."""

    attempt: int
    reason: Reason
    exit_code: int | None
    started_at: int | None
    finished_at: int


@dataclass(frozen=True, slots=True)
class StepState:
    """How far one step is. Times in microseconds since the epoch; bytes of the whole input and output.

    `retry_at`: not to be begun before. `sha256`: of the output, in hex.
    """

    phase: Phase = Phase.WAITING
    attempt: int = 1
    remade: int = 0
    exit_code: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    sha256: str = ""
    retry_at: int | None = None
    past: tuple[Past, ...] = ()

    def dump(self) -> list[Any]:
        return [getattr(self, name) for name in _STEP_FIELDS[:-1]] + [[list(past) for past in self.past]]

    @classmethod
    def load(cls, fields: list[Any]) -> StepState:
        """Also what an earlier version kept, which had fewer fields."""
        found = dict(zip(_STEP_FIELDS, fields, strict=False))
        past = tuple(Past(attempt, Reason(reason), *rest) for attempt, reason, *rest in found.get("past", ()))
        return cls(**{**found, "phase": Phase(found["phase"]), "past": past})


_STEP_FIELDS = tuple(StepState.__dataclass_fields__)  # `past` is the last


class Told(NamedTuple):
    """What clients told of a job, kept beside what the operator records: each changes only by them.

    `doomed`: deleted. What runs goes on to its end, nothing more is recorded, and then all of it goes.
    `cancelled`: 1: stop the piped steps, 2: those marked always too. `held`: begin no step.
    """

    doomed: bool = False
    cancelled: int = 0
    held: bool = False


NOTHING_TOLD = Told()


class Beside(NamedTuple):
    """What is kept beside the record, since others than its owner write it too."""

    told: Told = NOTHING_TOLD
    owner: str | None = None
    fence: int = 0
    version: int = 0


class Input(NamedTuple):
    """What came with a job for its first step to read: how many bytes, and their hash in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Job:
    """The record. `pod` names what the backend made for it, on `engine` (None: nothing yet); `pods` counts those that
    went away before; `version` counts its saves.

    `owner`, `fence`: the operator that works on it, and the token under which it took it. `pins`: by step, the image's digest to run instead of its
    source, where the client asked for that. `stop`, `stopped_at`: why and since when its steps are being stopped;
    `halted_at`: those marked always too. `reason`, `message`, `failed`: of the step that decided the outcome, from when
    it is decided on; steps marked always may still run then. `stderr`: the last lines of that step's.
    `output`: bytes of the last piped step's output, once it is kept. `origin`: the job that this is a rerun of.
    `input`: None: the first step reads nothing.
    """

    id: str
    spec: JobSpec
    created_at: int
    phase: Phase = Phase.WAITING
    pod: str | None = None
    engine: str | None = None
    steps: tuple[StepState, ...] = ()
    started_at: int | None = None
    finished_at: int | None = None
    reason: Reason | None = None
    message: str = ""
    output: int | None = None
    pins: tuple[str, ...] = ()
    stop: Reason | None = None
    stopped_at: int | None = None
    halted_at: int | None = None
    pods: int = 0
    failed: int | None = None
    stderr: tuple[str, ...] = ()
    origin: str | None = None
    input: Input | None = None
    told: Told = NOTHING_TOLD
    owner: str | None = None
    fence: int = 0
    version: int = 0

    @property
    def piped_over(self) -> bool:
        """Whether the outcome of the steps not marked always is known."""
        return self.reason is not None or all(state.phase is Phase.COMPLETE for state in self.steps[: self.spec.pipe])

    @property
    def current(self) -> int:
        """The step whose turn it is; the number of steps when there is none."""
        first, past = (self.spec.pipe, len(self.steps)) if self.piped_over else (0, self.spec.pipe)
        return next((step for step in range(first, past) if self.steps[step].phase not in FINAL), len(self.steps))

    def had(self, key: tuple[int, int]) -> bool:
        """Whether there has been such a (step, attempt)."""
        step, attempt = key
        return step < len(self.steps) and 1 <= attempt <= self.steps[step].attempt

    def image(self, step: int) -> str:
        """What to run: the step's source, or its digest where that was pinned."""
        return self.pins[step] if self.pins else self.spec.steps[step].source

    def with_step(self, step: int, state: StepState) -> Job:
        return replace(self, steps=(*self.steps[:step], state, *self.steps[step + 1 :]))

    def dump(self) -> dict[str, Any]:
        """What the operator records, as JSON values; the rest is kept beside it."""
        given = None if self.input is None else list(self.input)
        return {name: getattr(self, name) for name in _KEPT} | {"steps": [state.dump() for state in self.steps], "input": given}

    @classmethod
    def load(cls, job_id: str, spec: JobSpec, state: dict[str, Any], beside: Beside) -> Job:
        """Also what an earlier version kept, which had fewer fields."""
        kept = {name: state[name] for name in _KEPT if name in state}
        kept |= {name: Reason(kept[name]) for name in ("reason", "stop") if kept.get(name)}
        kept |= {name: tuple(kept[name]) for name in ("pins", "stderr") if name in kept}
        kept |= {"input": Input(*kept["input"])} if kept.get("input") else {}
        kept |= {"phase": Phase(state["phase"]), "steps": tuple(StepState.load(fields) for fields in state["steps"])}
        return cls(id=job_id, spec=spec, **beside._asdict(), **kept)


_KEPT = tuple(name for name in Job.__dataclass_fields__ if name not in ("id", "spec", *Beside._fields))


def new_job(job_id: str, spec: JobSpec, now: int) -> Job:
    return Job(job_id, spec, now, steps=(StepState(),) * len(spec.steps))


INPUT = "input"
"""How a job's input is called where its steps' outputs are called by their numbers."""


def step_label(spec: JobSpec, step: int) -> str:
    """`step 2 (uppercase)`: how a step is called where people read; counted from 1."""
    name = spec.steps[step].name or spec.steps[step].source
    return f"step {step + 1} ({name})"
