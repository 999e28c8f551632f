"""The Job of a Dray job, as it is asked of the API server: one Pod, which holds a keeper and a box for each step that is not done. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dray import policy, runner
from dray.backends.kubernetes import names
from dray.backends.kubernetes.registry import ImageConfig
from dray.fields import MAX_TIMEOUT, Limits
from dray.record import FINAL, Job
from dray.settings import Settings
from dray.spec import EnvVar, Kubernetes, Mount

NOBODY = 65532  # the user of whom an image has said nothing that would do
_OUR_RUNNER = "/dray-runner"  # in our own image
_HELD = MAX_TIMEOUT + 2 * 86_400  # seconds that a pod is there at most, for want of an operator that removes it
_ENDED = 3600  # seconds that a Job is there after its pod has ended, for want of one
_GRACE = 1  # second from TERM to KILL when a pod is removed
_VOLUME, _PROGRAM = "dray", "dray-bin"


@dataclass(frozen=True)
class Cluster:
    """What the API server can do. `pod_resources`: a Pod has resources of its own."""

    pod_resources: bool


def job(job: Job, pod: str, instance: str, given: Given) -> dict[str, Any]:
    """The Job object."""
    name = names.parts(pod)[1]
    labels = names.labels(instance, pod, job.id)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": _HELD,
            "ttlSecondsAfterFinished": _ENDED,
            "template": {"metadata": {"labels": {**given.asked.labels, **labels}}, "spec": _pod(job, name, given)},
        },
    }


@dataclass(frozen=True)
class Given:
    """What the Job follows from besides the record. `images`: by step, what its registry says, where that answered in time."""

    settings: Settings
    cluster: Cluster
    asked: Kubernetes
    images: Mapping[int, ImageConfig]


def secret(job: Job, pod: str, instance: str, owner: str, values: Mapping[str, str]) -> dict[str, Any]:
    """The operator's secrets that the job's steps name; it goes with its Job."""
    name = names.parts(pod)[1]
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner}
    metadata = {"name": name, "labels": names.labels(instance, pod, job.id), "ownerReferences": [reference]}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(values), "immutable": True}


def _pod(job: Job, name: str, given: Given) -> dict[str, Any]:
    asked, steps = given.asked, [step for step, state in enumerate(job.steps) if state.phase not in FINAL]
    limits = [policy.limits(job.spec, step, given.settings) for step in steps]
    resources = _requests(limits)
    on_pod = {"resources": resources} if resources and given.cluster.pod_resources else {}
    keeper = _keeper(given.settings, {} if on_pod else resources)
    if not job.pods:
        keeper |= _hook(job)
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}} | ({} if asked.root else {"runAsNonRoot": True}),
        "volumes": [{"name": _VOLUME, "emptyDir": {}}, {"name": _PROGRAM, "emptyDir": {}}, *_volumes(job)],
        "initContainers": [_install(job, given.settings)] if job.pods else [],
        "containers": [keeper, *(_box(job, step, name, given) for step in steps)],
        **on_pod,
    }
    if asked.serviceAccount:
        pod["serviceAccountName"] = asked.serviceAccount
    if asked.nodeSelector:
        pod["nodeSelector"] = dict(asked.nodeSelector)
    if asked.tolerations:
        pod["tolerations"] = [toleration.model_dump(exclude_none=True) for toleration in asked.tolerations]
    if asked.imagePullSecrets:
        pod["imagePullSecrets"] = [{"name": name} for name in asked.imagePullSecrets]
    return pod


# --- what is ours


# A kubelet starts the containers of a pod in their order, and the next one when this has ended: it is a second quicker than
# an init container, whose end the kubelet comes to know by looking once a second. What it does not do is to wait for an image
# that cannot be had yet, or to run the hook after it was itself restarted in between. So a pod made in place of another has
# the init container (faults.without_runner).
def _hook(job: Job) -> dict[str, Any]:
    return {"lifecycle": {"postStart": {"exec": {"command": _installing(job)}}}}


def _install(job: Job, settings: Settings) -> dict[str, Any]:
    return _ours(settings) | {"name": names.INSTALL, "command": _installing(job), "volumeMounts": _OUR_MOUNTS}


def _installing(job: Job) -> list[str]:
    return [_OUR_RUNNER, "install", runner.RUNNER_DIR, "--dir", runner.VOLUME_DIR, "--files", str(len(job.steps))]


def _keeper(settings: Settings, resources: Mapping[str, Any]) -> dict[str, Any]:
    keeper = {"name": names.KEEPER, "command": [_OUR_RUNNER, "keeper", "--seconds", str(_HELD)], "volumeMounts": _OUR_MOUNTS}
    return _ours(settings) | keeper | ({"resources": resources} if resources else {})


def _ours(settings: Settings) -> dict[str, Any]:
    return {"image": settings.image, "imagePullPolicy": "IfNotPresent", "securityContext": _RESTRICTED | {"runAsUser": NOBODY, "runAsNonRoot": True}}


# --- boxes


def _box(job: Job, step: int, secret: str, given: Given) -> dict[str, Any]:
    spec, config = job.spec.steps[step], given.images.get(step)
    box: dict[str, Any] = {
        "name": names.box(step),
        "image": config.pinned if config else job.image(step),
        "imagePullPolicy": "Always" if spec.refresh and not job.pins else "IfNotPresent",
        "command": runner.box_command(step, options=runner.gate_options(job, step)),
        "env": list(_environment(job.spec.environment_of(step), secret)),
        "resources": _resources(policy.limits(job.spec, step, given.settings)),
        "securityContext": _security(config, given.asked.root),
        "volumeMounts": [*_MOUNTS, *_output(step, spec.output), *(_mount(mount) for mount in spec.mounts)],
    }
    return box | {"workingDir": spec.workdir} if spec.workdir else box


_RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _security(config: ImageConfig | None, root: bool) -> dict[str, Any]:
    """The image's own user, where it is a number and not root's; a name is not known to be another's."""
    if root:
        return {}
    user = config.user.partition(":")[0] if config else ""
    return _RESTRICTED | ({} if user.isdecimal() and int(user) != 0 else {"runAsUser": NOBODY})


def _environment(variables: Mapping[str, EnvVar], secret: str) -> Iterator[dict[str, Any]]:
    """References only: what has a value is in the order, where nothing expands it."""
    for name, variable in variables.items():
        if variable.secret is not None:
            yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": variable.secret}}}
        elif variable.cluster is not None:
            reference = {"name": variable.cluster.name, "key": variable.cluster.key, "optional": variable.cluster.optional}
            kind = "secretKeyRef" if variable.cluster.kind == "Secret" else "configMapKeyRef"
            yield {"name": name, "valueFrom": {kind: reference}}


# --- resources


def _requests(limits: list[Limits]) -> dict[str, Any]:
    """For the whole pod, as one step runs at a time: the most that any of them may use."""
    cpu = max((limit.cpu for limit in limits if limit.cpu is not None), default=None)
    memory = max((limit.memory for limit in limits if limit.memory is not None), default=None)
    found = _quantities(cpu, memory)
    return {"requests": found} if found else {}


def _resources(limits: Limits) -> dict[str, Any]:
    """Explicit requests of nothing: else the limits would be requested, for each step."""
    found = _quantities(limits.cpu, limits.memory)
    return {"limits": found, "requests": dict.fromkeys(found, "0")} if found else {}


def _quantities(cpu: int | None, memory: int | None) -> dict[str, str]:
    return ({} if cpu is None else {"cpu": f"{cpu}m"}) | ({} if memory is None else {"memory": str(memory)})


# --- volumes


def _volumes(job: Job) -> Iterator[dict[str, Any]]:
    mounts = {_named(mount): mount for step in job.spec.steps for mount in step.mounts}
    for name, mount in mounts.items():
        if mount.volume is not None:
            yield {"name": name, "persistentVolumeClaim": {"claimName": mount.volume}}
        else:
            yield {"name": name, "hostPath": {"path": mount.hostPath, "type": "Directory"}}


def _named(mount: Mount) -> str:
    """A volume's name in the pod; two mounts of the same are one volume."""
    what = f"{mount.volume}" if mount.volume is not None else f"path {mount.hostPath}"
    return f"mount-{hashlib.sha256(what.encode()).hexdigest()[:16]}"


def _output(step: int, output: str) -> Iterator[dict[str, Any]]:
    """An empty file that everybody may write to, over what the image has there."""
    if output.startswith("/"):
        yield _mounted(_VOLUME, output) | {"subPath": f".{step}.file"}


def _mount(mount: Mount) -> dict[str, Any]:
    return _mounted(_named(mount), mount.path, mount.readOnly)


def _mounted(volume: str, path: str, read_only: bool = False) -> dict[str, Any]:
    return {"name": volume, "mountPath": path} | ({"readOnly": True} if read_only else {})


_MOUNTS = (_mounted(_VOLUME, runner.VOLUME_DIR), _mounted(_PROGRAM, runner.RUNNER_DIR, True))
_OUR_MOUNTS = [_mounted(_VOLUME, runner.VOLUME_DIR), _mounted(_PROGRAM, runner.RUNNER_DIR)]
