"""What a pod's things are called on the engine: each name and label is made in one function.

All of a pod carry `dray.pod`. A sandbox made ahead belongs to no job yet and labels never change: so it carries its
operator's name instead of a job's, and which job took it stands in the job's record alone.
"""

from __future__ import annotations

import secrets

from dray.pod import Key

INSTANCE = "dray.instance"
POD = "dray.pod"
JOB = "dray.job"
STEP = "dray.step"
ATTEMPT = "dray.attempt"
OPERATOR = "dray.operator"
VOLUME = "dray.volume"
IDENTITY = "dray.engine"  # a volume, and its label


def pod(job_id: str) -> str:
    """Of a pod made for a job; also its volume's name."""
    return f"dray-{job_id.lower()}"


def warm_pod() -> str:
    """Of a pod made ahead."""
    return f"dray-{secrets.token_hex(10)}"


def sandbox(pod: str) -> str:
    return f"{pod}-sandbox"


def box(pod: str, key: Key) -> str:
    return f"{pod}-{key[0]}-{key[1]}"


def mounted(volume: str) -> str:
    """A volume that jobs mount by its name: no other volume of the engine is theirs to reach."""
    return f"dray-volume-{volume}"


def of_pod(instance: str, pod: str, job_id: str) -> dict[str, str]:
    """The labels of a job's volume and sandbox."""
    return {INSTANCE: instance, POD: pod, JOB: job_id}


def of_warm(instance: str, pod: str, operator: str) -> dict[str, str]:
    """The same of one made ahead."""
    return {INSTANCE: instance, POD: pod, OPERATOR: operator}


def of_box(instance: str, pod: str, job_id: str, key: Key) -> dict[str, str]:
    return {**of_pod(instance, pod, job_id), STEP: str(key[0]), ATTEMPT: str(key[1])}


def key_of(labels: dict[str, str]) -> Key | None:
    """Of a box; None: a sandbox."""
    return (int(labels[STEP]), int(labels[ATTEMPT])) if STEP in labels else None
