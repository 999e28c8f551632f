"""What the operator's settings let a job use: images, paths of the host, resources. No I/O.

The API asks at a job's POST, so that its client hears at once; the operator, whose word counts, before each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from dray.fields import Limits
from dray.pod import Fault
from dray.reason import Reason
from dray.settings import Runs, Settings
from dray.spec import OBJECT_NAMESPACE, JobSpec, Step, unsupported


def refusals(spec: JobSpec, settings: Settings) -> Iterator[tuple[str, Fault]]:
    """(field, fault) of everything in the job that is not allowed."""
    yield from _of_backend(spec, settings)
    for number, step in enumerate(spec.steps):
        for field, fault in _of_step(step, settings):
            yield f"steps[{number}].{field}", fault


def refusal(spec: JobSpec, step: int, settings: Settings) -> Fault | None:
    """The first fault of one step; the first step has those of the whole job too."""
    faults = (*(_of_backend(spec, settings) if step == 0 else ()), *_of_step(spec.steps[step], settings))
    return next((fault for _, fault in faults), None)


def _of_step(step: Step, settings: Settings) -> Iterator[tuple[str, Fault]]:
    if settings.images and not any(fnmatchcase(_full(step.source), pattern) or fnmatchcase(step.source, pattern) for pattern in settings.images):
        yield "source", Fault(Reason.IMAGE_NOT_ALLOWED, f"image {step.source} is none that is allowed here: {', '.join(settings.images)}")
    for index, mount in enumerate(step.mounts):
        if mount.hostPath not in (None, *settings.host_paths):  # none below them: a job could lay a link there, which the engine would follow
            allowed = ", ".join(settings.host_paths) or "none"
            yield f"mounts[{index}].hostPath", Fault(Reason.MOUNT_NOT_ALLOWED, f"{mount.hostPath} is not allowed here: DRAY_HOST_PATHS names {allowed}")
    for name, asked, most in zip(Limits._fields, step.resources.limits, settings.limits_max, strict=True):
        if asked is not None and most is not None and asked > most:
            unit = {"cpu": "m", "memory": " bytes", "pids": ""}[name]
            yield f"resources.{name}", Fault(Reason.RESOURCES_NOT_ALLOWED, f"{name}: at most {most}{unit} is allowed here")


def _of_backend(spec: JobSpec, settings: Settings) -> Iterator[tuple[str, Fault]]:
    """What the job asks for and its backend cannot do, or not here. Of one that names another backend its operators judge."""
    if spec.backend not in (None, settings.backend):
        return
    for field, message in unsupported(spec, settings.backend):
        yield field, Fault(Reason.NOT_SUPPORTED, message)
    asked, own = spec.kubernetes, spec.labels.get(OBJECT_NAMESPACE)
    if asked is None or settings.backend is not Runs.KUBERNETES:
        return
    if asked.namespace not in ((None, own) if own else (None, settings.job_namespace, *settings.job_namespaces)):
        yield "kubernetes.namespace", Fault(Reason.NOT_SUPPORTED, f"{asked.namespace} is no namespace that is allowed here")
    if asked.root and not settings.root:
        yield "kubernetes.root", Fault(Reason.NOT_SUPPORTED, "images that run as root are not allowed here")


def limits(spec: JobSpec, step: int, settings: Settings) -> Limits:
    """What the step gets: what it asks for, else the default, and never more than the ceiling."""
    given = (
        asked if asked is not None else _least(default, most)
        for asked, default, most in zip(spec.steps[step].resources.limits, settings.limits, settings.limits_max, strict=True)
    )
    return Limits(*given)


def _least(default: int | None, most: int | None) -> int | None:
    return min((limit for limit in (default, most) if limit is not None), default=None)


def _full(source: str) -> str:
    """The reference with its registry, as Docker fills it in: `ubuntu` is docker.io/library/ubuntu:latest."""
    name, at, digest = source.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not (any(mark in first for mark in ".:") or first == "localhost"):
        name = f"docker.io/{name}"
    if not at and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return name + at + digest
