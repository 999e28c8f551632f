"""The name of each key in Redis, and the channels. What each holds is listed in the package's docstring."""

from __future__ import annotations

from collections.abc import Iterable

from dray.record import Phase
from dray.settings import Runs
from dray.spec import JobSpec

INSTANCE = "dray:instance"
FORMAT = "dray:format"
SEQUENCE = "dray:sequence"
FENCE = "dray:fence"
JOBS = "dray:jobs"
_WAITING = "dray:waiting"
ACTIVE = "dray:active"
FINISHED = "dray:finished"
EXPIRING = "dray:expiring"
OPERATORS = "dray:operators"
ENGINES = "dray:engines"
BACKENDS = "dray:backends"
BEGUN = "dray:begun"
ADOPTED = "dray:adopted"
UPLOADS = "dray:uploads"
_QUESTIONS = "dray:questions"
WAKE = "dray:wake"
NEWS = "dray:news"


def job(job_id: str) -> str:
    return f"dray:job:{job_id}"


def log(job_id: str) -> str:
    return f"dray:job:{job_id}:log"


def cursors(job_id: str) -> str:
    return f"dray:job:{job_id}:log:cursors"


def outputs(job_id: str) -> str:
    return f"dray:job:{job_id}:outputs"


def waiting(backend: str | None) -> str:
    """Of jobs for that backend; None: for any."""
    return _of_backend(_WAITING, backend)


def questions(backend: str | None) -> str:
    return _of_backend(_QUESTIONS, backend)


def _of_backend(queue: str, backend: str | None) -> str:
    return queue if backend is None else f"{queue}:{backend}"


QUEUES = tuple(waiting(backend) for backend in (None, *Runs))
"""All in which a job may wait."""


def active(operator: str) -> str:
    return f"{ACTIVE}:{operator}"


def status(phase: Phase) -> str:
    """Of jobs in that phase; those that wait count as running, as to clients."""
    return f"dray:status:{Phase.RUNNING if phase is Phase.WAITING else phase}"


def name(text: str) -> str:
    return f"dray:name:{text}"


def label(text: str) -> str:
    """`key`, or `key=value`."""
    return f"dray:label:{text}"


def indexes(spec: JobSpec) -> Iterable[str]:
    """Those by which the job can be found, apart from its status."""
    if spec.name:
        yield name(spec.name)
    for key, value in spec.labels.items():
        yield label(key)
        yield label(f"{key}={value}")


def idempotency(digest: str) -> str:
    return f"dray:key:{digest}"


def answer(question: str) -> str:
    return f"dray:answer:{question}"
