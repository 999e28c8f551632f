"""What a step finds in its environment: the client's variables, secrets, and where it stands in its job."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from dray.backends import Launching
from dray.record import Job, Phase
from dray.secrets import Secrets
from dray.spec import EnvVar


async def launching(job: Job, step: int, secrets: Secrets, resolved: bool) -> Launching:
    """Raises NoSecret, and Unavailable where a value lies in a cluster that does not answer. Not `resolved`: without what is only named."""
    variables = job.spec.environment_of(step)
    if not resolved:
        found: dict[str, str | None] = {name: None if variable.named else variable.value for name, variable in variables.items()}
    elif any(variable.cluster for variable in variables.values()):
        found = await asyncio.to_thread(_values, variables, secrets)
    else:
        found = _values(variables, secrets)
    values = {name: value for name, value in found.items() if value is not None}
    masked = tuple(name for name, variable in variables.items() if variable.secretive and (name in values or not resolved))
    left = max(job.spec.steps[step].retries - len(job.steps[step].past), 0)
    return Launching(values | _place(job, step), masked, left)


def _values(variables: Mapping[str, EnvVar], secrets: Secrets) -> dict[str, str | None]:
    return {name: secrets.of(variable) for name, variable in variables.items()}


def _place(job: Job, step: int) -> dict[str, str]:
    """Dray's own variables, which go over a client's of the same name. Steps are counted from 1, as in messages."""
    place = {
        "DRAY_JOB_ID": job.id,
        "DRAY_JOB_NAME": job.spec.name,
        "DRAY_STEP_INDEX": str(step + 1),
        "DRAY_STEP_NAME": job.spec.steps[step].name,
        "DRAY_ATTEMPT": str(job.steps[step].attempt),
    }
    if job.spec.steps[step].always:
        place |= _outcome(job)
    return {name: value.replace("\0", "") for name, value in place.items()}


def _outcome(job: Job) -> dict[str, str]:
    """What a step marked always is told of the steps before it; empty where there is nothing to tell."""
    failed = job.steps[job.failed] if job.failed is not None else None
    return {
        "DRAY_STATUS": Phase.ERROR if job.reason else Phase.COMPLETE,
        "DRAY_REASON": job.reason or "",
        "DRAY_FAILED_STEP": "" if job.failed is None else str(job.failed + 1),
        "DRAY_EXIT_CODE": "" if failed is None or failed.exit_code is None else str(failed.exit_code),
    }
