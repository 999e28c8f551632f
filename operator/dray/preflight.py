"""What can be known of a job before it runs: whether what it names is allowed, its secrets are here, its images can be had."""

from __future__ import annotations

from dray import policy
from dray.backends import Backend
from dray.errors import FieldError, Invalid
from dray.secrets import NoSecret, Secrets
from dray.settings import Settings
from dray.spec import JobSpec


async def preflight(spec: JobSpec, backend: Backend, settings: Settings) -> tuple[str, ...]:
    """By step, its image as of now. Raises Invalid, naming every field at fault."""
    faults = [FieldError(field, fault.message) for field, fault in policy.refusals(spec, settings)]
    absent = _absent_secrets(spec, Secrets(settings))
    if faults:
        raise Invalid([*faults, *absent])  # what is not allowed is not even pulled
    try:
        images = await backend.pin(spec)
    except Invalid as error:
        raise Invalid([*absent, *error.errors]) from error
    if absent:
        raise Invalid(absent)
    return images


def _absent_secrets(spec: JobSpec, secrets: Secrets) -> list[FieldError]:
    lists = [("environment", spec.environment), *((f"steps[{number}].environment", step.environment) for number, step in enumerate(spec.steps))]
    faults = []
    for where, variables in lists:
        for number, variable in enumerate(variables):
            if variable.secret is not None:
                try:
                    secrets.value(variable.secret)
                except NoSecret as error:
                    faults.append(FieldError(f"{where}[{number}].secret", str(error)))
    return faults
