"""The record of a job → the .status of its object. No I/O.

Nothing in it is a secret's value, nor a variable's: the tail of the log has them masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dray.clock import SECOND
from dray.crd.drayjob import DrayJob, timestamp
from dray.reason import Reason
from dray.record import FINAL, Job, Phase, StepState

INVALID = "invalid"
"""The status of an object that never became a job."""
GONE = "RecordGone"
_SUSPENDED = "Suspended"
_MASK = "***"
_SHORTEST_MASKED = 4  # characters: shorter values are everywhere
_LONGEST_MESSAGE = 1024  # characters


class Condition(NamedTuple):
    """What holds, as a word for programs and a sentence for people."""

    type: str
    holds: bool
    reason: str
    message: str


def of_record(drayjob: DrayJob, job: Job, now: int) -> dict[str, Any]:
    """Of an object whose job is recorded. `now`: microseconds since the epoch."""
    completed = sum(state.phase is Phase.COMPLETE for state in job.steps)
    failed = camel(job.reason) if job.reason and job.phase in FINAL else None
    found = {
        "jobID": job.id,
        "status": "suspended" if _rests(job) and job.phase is Phase.WAITING else job.phase.value,
        "progress": f"{completed}/{len(job.steps)}",
        "stepsCompleted": completed,
        "startTime": _time(job.started_at),
        "completionTime": _time(job.finished_at),
        "duration": _duration(job),
        "reason": failed,
        "steps": [_step(job, number, state) for number, state in enumerate(job.steps)],
        "stderr": _masked(job) if failed else None,
    }
    return _whole(drayjob, found, [*_progress(job), *_outcome(job)], now)


def waiting_for_release(drayjob: DrayJob, steps: int, now: int) -> dict[str, Any]:
    """Of an object that was suspended before its job was made."""
    found = {"status": "suspended", "progress": f"0/{steps}", "stepsCompleted": 0}
    accepted = Condition("Accepted", True, "Accepted", "its job is made when it is no longer suspended")
    return _whole(drayjob, found, [accepted, Condition("Running", False, _SUSPENDED, "suspend is true")], now)


def refused(drayjob: DrayJob, reason: str, message: str, now: int) -> dict[str, Any]:
    """Of an object that cannot become a job."""
    failed = Condition("Failed", True, reason, message)
    others = [Condition(word, False, reason, "it is not a job that can be run") for word in ("Running", "Succeeded")]
    found = {"status": INVALID, "reason": reason, "stepsCompleted": 0, "completionTime": timestamp(now)}
    return _whole(drayjob, found, [Condition("Accepted", False, reason, message), *others, failed], now)


def lost(drayjob: DrayJob, now: int) -> dict[str, Any]:
    """Of an object whose job's record is gone before its end was seen here. It is not run again: it may have had effects."""
    message = "the job was deleted at Dray's API, or its record was lost, before its end was seen; it is not run again"
    kept = {key: value for key, value in drayjob.status.items() if key not in ("conditions", "observedGeneration")}
    found = kept | {"status": "error", "reason": GONE, "completionTime": timestamp(now)}
    conditions = [
        Condition("Accepted", True, "Accepted", "recorded"),
        Condition("Running", False, GONE, message),
        Condition("Succeeded", False, GONE, message),
        Condition("Failed", True, GONE, message),
    ]
    return _whole(drayjob, found, conditions, now)


def transitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Condition]:
    """The conditions that have come true, or false for another reason, and are worth an event."""
    earlier = {condition["type"]: condition for condition in before.get("conditions", ())}
    for condition in after.get("conditions", ()):
        known = earlier.get(condition["type"], {})
        holds = condition["status"] == "True"
        worth = holds or condition["reason"] == _SUSPENDED
        if worth and (known.get("status"), known.get("reason")) != (condition["status"], condition["reason"]):
            yield Condition(condition["type"], holds, condition["reason"], condition["message"])


def camel(reason: Reason) -> str:
    """`exit_code` → `ExitCode`."""
    return reason.value.title().replace("_", "")


def _progress(job: Job) -> Iterator[Condition]:
    yield Condition("Accepted", True, "Accepted", f"recorded as job {job.id}")
    if job.phase in FINAL:
        yield Condition("Running", False, "Ended", "the job has ended")
    elif _rests(job):
        yield Condition("Running", False, _SUSPENDED, "suspend is true: no step is begun")
    elif job.phase is Phase.WAITING:
        yield Condition("Running", False, "Waiting", "it waits for its turn")
    else:
        yield Condition("Running", True, "Running", "its steps are run")


def _outcome(job: Job) -> Iterator[Condition]:
    if job.phase not in FINAL:
        return
    complete = job.phase is Phase.COMPLETE
    reason = "Complete" if complete or job.reason is None else camel(job.reason)
    message = "all steps are complete" if complete else job.message[:_LONGEST_MESSAGE]
    yield Condition("Succeeded", complete, reason, message)
    yield Condition("Failed", not complete, reason, message)


def _rests(job: Job) -> bool:
    """Whether it is held, and nothing of it runs."""
    return job.told.held and job.phase not in FINAL and not any(state.phase is Phase.RUNNING for state in job.steps)


def _step(job: Job, number: int, state: StepState) -> dict[str, Any]:
    step = job.spec.steps[number]
    found = {
        "name": step.name or step.source,
        "state": state.phase.value,
        "exitCode": state.exit_code,
        "attempt": state.attempt,
        "startTime": _time(state.started_at),
        "completionTime": _time(state.finished_at),
    }
    return {key: value for key, value in found.items() if value is not None}


def _whole(drayjob: DrayJob, found: dict[str, Any], conditions: list[Condition], now: int) -> dict[str, Any]:
    known = {condition["type"]: condition for condition in drayjob.status.get("conditions", ())}
    written = [_condition(drayjob, condition, known.get(condition.type, {}), now) for condition in conditions]
    whole = found | {"observedGeneration": drayjob.generation, "conditions": written}
    return {key: value for key, value in whole.items() if value is not None}


def _condition(drayjob: DrayJob, condition: Condition, known: Mapping[str, Any], now: int) -> dict[str, Any]:
    """In the form of metav1.Condition; its time is that of the last change of its status."""
    status = "True" if condition.holds else "False"
    since = known["lastTransitionTime"] if known.get("status") == status else timestamp(now)
    return {
        "type": condition.type,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": since,
        "observedGeneration": drayjob.generation,
    }


def _masked(job: Job) -> list[str]:
    values = {var.value for step in range(len(job.steps)) for var in job.spec.environment_of(step).values()}
    lines = list(job.stderr)
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST_MASKED:
            lines = [line.replace(value, _MASK) for line in lines]
    return lines


def _time(microseconds: int | None) -> str | None:
    return None if microseconds is None else timestamp(microseconds)


def _duration(job: Job) -> str | None:
    """`1h2m`, `1m30s`, `4s`: in whole seconds; the two greatest units."""
    if job.started_at is None or job.finished_at is None:
        return None
    left = max(job.finished_at - job.started_at, 0) // SECOND
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])
