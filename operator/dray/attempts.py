"""The attempts of a job's steps that have ended, from its record alone: what metrics and traces tell of. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dray.reason import Reason
from dray.record import FINAL, Job, Phase


@dataclass(frozen=True, slots=True)
class Attempt:
    """One that has ended. Times in microseconds since the epoch; `started_at` None: its command never began, for want of its image perhaps.

    `reason` None: it is complete, or the record does not say why not: it keeps one step's reason, the one that decided the job's outcome.
    """

    step: int
    number: int
    phase: Phase
    reason: Reason | None
    exit_code: int | None
    started_at: int | None
    finished_at: int
    bytes_in: int | None = None
    bytes_out: int | None = None


def ended(job: Job) -> Iterator[Attempt]:
    """Step by step, each step's in order; not those that a rerun has from the job before it, nor one that went away with its engine unseen to begin."""
    for step, state in enumerate(job.steps):
        for past in state.past:
            if _own(job, past.finished_at) and (past.started_at is not None or past.reason is not Reason.LOST):
                yield Attempt(step, past.attempt, Phase.ERROR, past.reason, past.exit_code, past.started_at, past.finished_at)
        if state.phase in FINAL and state.finished_at is not None and _own(job, state.finished_at):
            times = (state.started_at, state.finished_at)
            yield Attempt(step, state.attempt, state.phase, _reason(job, step), state.exit_code, *times, state.bytes_in, state.bytes_out)


def _own(job: Job, finished_at: int) -> bool:
    return job.origin is None or finished_at >= job.created_at


def _reason(job: Job, step: int) -> Reason | None:
    if step == job.failed:
        return job.reason
    return Reason.EXIT_CODE if job.steps[step].exit_code else None
