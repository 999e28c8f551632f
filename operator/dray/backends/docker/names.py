"""What a job's things are called on the engine: each name and label is made in one function."""

from __future__ import annotations

INSTANCE = "dray.instance"
JOB = "dray.job"
STEP = "dray.step"
ATTEMPT = "dray.attempt"


def volume(job_id: str) -> str:
    return f"dray-{job_id.lower()}"


def sandbox(job_id: str) -> str:
    return f"dray-{job_id.lower()}-sandbox"


def box(job_id: str, step: int, attempt: int) -> str:
    return f"dray-{job_id.lower()}-{step}-{attempt}"


def labels(instance: str, job_id: str, key: tuple[int, int] | None = None) -> dict[str, str]:
    """Of a volume or sandbox; with a (step, attempt) of a box."""
    labels = {INSTANCE: instance, JOB: job_id}
    if key is not None:
        labels |= {STEP: str(key[0]), ATTEMPT: str(key[1])}
    return labels


def key_of(labels: dict[str, str]) -> tuple[int, int] | None:
    """The (step, attempt) of a box; None: a sandbox."""
    return (int(labels[STEP]), int(labels[ATTEMPT])) if STEP in labels else None
