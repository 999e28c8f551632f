"""What this process counts for Prometheus, in the client library's default registry. docs/operations.md prints the list.

What is counted of jobs and steps follows from changes of their records (`observe`), at the one place where the operator
saves them and the one where a client's cancel ends a job that has not begun: so nothing is counted twice. A counter
begins at 0 with its process, as Prometheus expects. A change whose saving was not seen to succeed, because the process
ended or Redis' answer was lost just then, is counted by nobody; what the API says of the records is exact at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram

from dray import attempts
from dray.clock import SECOND
from dray.errors import Stale, Unavailable
from dray.reason import Reason
from dray.record import FINAL, Job, Phase

P = ParamSpec("P")
R = TypeVar("R")
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)  # seconds
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_OTHER = "other"  # of an attempt whose reason the record does not keep

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use here

JOBS = Counter("dray_jobs_finished_total", "Jobs that have ended", ["status", "reason"])
JOB_TIME = Histogram("dray_job_duration_seconds", "From a job's beginning to its end", ["status"], buckets=_LONG)
JOB_WAIT = Histogram("dray_job_wait_seconds", "From a job's creation to its beginning", buckets=_LONG)
JOBS_OPEN = Gauge("dray_jobs_in_work", "Jobs that this operator works on, those only being cleaned up included")
ATTEMPTS = Counter("dray_step_attempts_total", "Attempts of steps that have ended", ["status", "reason"])
ATTEMPT_TIME = Histogram("dray_step_duration_seconds", "How long the command of an attempt of a step ran", ["status"], buckets=_LONG)
PIPED = Counter("dray_piped_bytes_total", "Output of complete steps")
PULLS = Histogram("dray_image_pull_duration_seconds", "Pulls of images; each try of one that is tried again", ["status"], buckets=_LONG)
LOG_LINES = Counter("dray_log_lines_total", "Lines of jobs' logs that were kept")
LOG_BYTES = Counter("dray_log_bytes_total", "Bytes of jobs' logs that were kept, as stored")
PASSES = Histogram("dray_reconcile_duration_seconds", "Passes over a job", buckets=_SHORT)
PASS_ERRORS = Counter(
    "dray_reconcile_errors_total", "Passes that will be made again: the record had changed, Redis or the engine did not answer, or a bug", ["kind"]
)
LEASE = Gauge("dray_lease_held", "1 while this operator's lease holds, else 0")
LEASE_RENEWALS = Counter("dray_lease_renewals_total", "Times this operator's lease was taken or renewed")
LEASE_LOSSES = Counter("dray_lease_losses_total", "Times this operator's lease had run out before it was renewed")
TAKEN_OVER = Counter("dray_jobs_taken_over_total", "Jobs taken over from an operator that is gone, or from this one before it was started again")


def _start() -> None:
    """Have every series there from the start: the first failure must be seen as a change."""
    for counter, reasons in ((JOBS, [*Reason]), (ATTEMPTS, [*Reason, _OTHER])):
        counter.labels(Phase.COMPLETE, "")
        for reason in reasons:
            counter.labels(Phase.ERROR, reason)
    for histogram in (JOB_TIME, ATTEMPT_TIME, PULLS):
        for phase in FINAL:
            histogram.labels(phase)
    for kind in ("stale", "unavailable", "bug"):
        PASS_ERRORS.labels(kind)


_start()


def observe(before: Job | None, after: Job) -> None:
    """Count what has happened to a job, from its record as it was read and as it was saved. Unknown before: nothing."""
    if before is None:
        return
    if before.phase is Phase.WAITING and after.started_at is not None:
        JOB_WAIT.observe(_seconds(after.created_at, after.started_at))
    _observe_attempts(before, after)
    if after.phase in FINAL and before.phase not in FINAL:
        JOBS.labels(after.phase, after.reason or "").inc()
        if after.started_at is not None and after.finished_at is not None:
            JOB_TIME.labels(after.phase).observe(_seconds(after.started_at, after.finished_at))


def _observe_attempts(before: Job, after: Job) -> None:
    known = {(attempt.step, attempt.number) for attempt in attempts.ended(before)}
    for attempt in attempts.ended(after):
        if (attempt.step, attempt.number) in known:
            continue
        complete = attempt.phase is Phase.COMPLETE
        ATTEMPTS.labels(attempt.phase, "" if complete else attempt.reason or _OTHER).inc()
        if attempt.started_at is not None:
            ATTEMPT_TIME.labels(attempt.phase).observe(_seconds(attempt.started_at, attempt.finished_at))
        if complete:
            PIPED.inc(attempt.bytes_out or 0)


def a_pass(step: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Counts the calls, each a pass over a job, and what they meet."""

    @wraps(step)
    async def counted(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with PASSES.time():
                return await step(*args, **kwargs)
        except Exception as error:
            PASS_ERRORS.labels("stale" if isinstance(error, Stale) else "unavailable" if isinstance(error, Unavailable) else "bug").inc()
            raise

    return counted


@contextmanager
def a_pull() -> Iterator[None]:
    """Counts one try to pull an image; it failed where it raises."""
    began, status = time.monotonic(), Phase.ERROR
    try:
        yield
        status = Phase.COMPLETE
    finally:
        PULLS.labels(status).observe(time.monotonic() - began)


def shipped(lines: int, size: int) -> None:
    """Count a chunk of a log that is kept."""
    LOG_LINES.inc(lines)
    LOG_BYTES.inc(size)


def enlisted(kept: bool) -> None:
    """Count a renewal of the lease; `kept`: it had not run out before."""
    LEASE_RENEWALS.inc()
    if not kept:
        LEASE_LOSSES.inc()


def _seconds(start: int, end: int) -> float:
    """Clocks of operator and engine may differ."""
    return max(end - start, 0) / SECOND
