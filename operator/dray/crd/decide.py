"""The one next thing to do about an object, given it and its job's record. No I/O.

It looks at how things are, not at what has happened: so an object that was made, edited or deleted while no operator
ran is dealt with like any other, and every step can be done twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from dray.clock import SECOND
from dray.crd import status
from dray.crd.drayjob import DrayJob
from dray.record import FINAL, Job

DELETE_WITHIN = 30.0  # seconds: a deleted object goes after that, whatever has become of its job


class Refusal(NamedTuple):
    """Why an object cannot become a job."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class HoldBack:
    """Put our finalizer on the object."""


@dataclass(frozen=True, slots=True)
class Release:
    """Take it off: the object goes."""


@dataclass(frozen=True, slots=True)
class Create:
    """Record its job."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Tell the job to begin no step, or to go on."""

    held: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """Tell the job to stop."""


@dataclass(frozen=True, slots=True)
class Doom:
    """Delete the job."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Write this as the object's status."""

    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object."""


Action = HoldBack | Release | Create | Hold | Cancel | Doom | Publish | Delete


def decide(drayjob: DrayJob, job: Job | None, refusal: Refusal | None, now: int) -> Action | None:
    """First fit wins; None: nothing, until something changes or until `due`. `now`: microseconds since the epoch."""
    if drayjob.deleted_at is not None:
        return _delete(drayjob, job, now) if drayjob.held_back else None
    if drayjob.mirror_of is not None:
        return _mirror(drayjob, job, refusal, now)
    if job is None or job.told.doomed:
        return _without_record(drayjob, refusal, now)
    if job.phase not in FINAL and drayjob.suspended != job.told.held and not job.told.cancelled:
        return Hold(drayjob.suspended)
    return _publish(drayjob, status.of_record(drayjob, job, now)) or _outlived(drayjob, now)


def due(drayjob: DrayJob) -> float | None:
    """When `decide` may say something else for no other reason than the time; seconds since the epoch."""
    if drayjob.deleted_at is not None:
        return drayjob.deleted_at + DELETE_WITHIN if drayjob.held_back else None
    if drayjob.time_to_live is not None and drayjob.completed_at is not None:
        return drayjob.completed_at + drayjob.time_to_live
    return None


def overdue(drayjob: DrayJob, now: int) -> bool:
    """Whether its deletion has taken as long as it may."""
    return drayjob.deleted_at is not None and now >= (drayjob.deleted_at + DELETE_WITHIN) * SECOND


def _delete(drayjob: DrayJob, job: Job | None, now: int) -> Action | None:
    """Cancel, wait for the end (steps marked always run), remove the record, wait until it and its containers are gone."""
    if job is None or drayjob.mirror_of is not None:
        return Release()
    if job.told.doomed:
        return Release() if overdue(drayjob, now) else None
    if job.phase in FINAL:
        return Doom()
    if not job.told.cancelled:
        return Cancel()
    return Doom() if overdue(drayjob, now) else None


def _without_record(drayjob: DrayJob, refusal: Refusal | None, now: int) -> Action | None:
    if drayjob.accepted:
        if drayjob.completed_at is None:
            return Publish(status.lost(drayjob, now))
        return _outlived(drayjob, now)
    if drayjob.status.get("status") == status.INVALID:
        return _outlived(drayjob, now)
    if refusal is not None:
        return Publish(status.refused(drayjob, refusal.reason, refusal.message, now))
    if drayjob.suspended:
        return _publish(drayjob, status.waiting_for_release(drayjob, len(drayjob.job_spec.steps), now))
    return Create() if drayjob.held_back else HoldBack()


def _mirror(drayjob: DrayJob, job: Job | None, refusal: Refusal | None, now: int) -> Action | None:
    if drayjob.status.get("status") == status.INVALID:
        return _outlived(drayjob, now)
    if refusal is not None:
        return Publish(status.refused(drayjob, refusal.reason, refusal.message, now))
    if job is None or job.told.doomed:
        return Delete()
    return _publish(drayjob, status.of_record(drayjob, job, now)) or _outlived(drayjob, now)


def _publish(drayjob: DrayJob, wanted: dict[str, Any]) -> Publish | None:
    return None if wanted == drayjob.status else Publish(wanted)


def _outlived(drayjob: DrayJob, now: int) -> Delete | None:
    end = due(drayjob)
    return Delete() if end is not None and now >= end * SECOND else None
