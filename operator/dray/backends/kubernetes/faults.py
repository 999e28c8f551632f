"""What the cluster's words on a container, or on a whole pod, mean. No I/O.

Only its codes are judged, never its English: that goes into messages.
"""

from __future__ import annotations

from dray.backends.kubernetes import names
from dray.backends.kubernetes.pods import Container, Seen
from dray.pod import Fault
from dray.reason import Reason

_WAITING = {
    "ErrImagePull": Reason.IMAGE_PULL_FAILED,
    "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
    "ImageInspectError": Reason.IMAGE_PULL_FAILED,
    "RegistryUnavailable": Reason.IMAGE_PULL_FAILED,
    "SignatureValidationFailed": Reason.IMAGE_PULL_FAILED,
    "InvalidImageName": Reason.IMAGE_NOT_FOUND,
    "ErrImageNeverPull": Reason.IMAGE_NOT_FOUND,
    "CreateContainerConfigError": Reason.START_FAILED,
    "CreateContainerError": Reason.START_FAILED,
    "PreCreateHookError": Reason.START_FAILED,
    "RunContainerError": Reason.START_FAILED,
}
_NOT_STARTED = ("StartError", "ContainerCannotRun")
OOM = "OOMKilled"


def of_container(container: Container, image: str, refers: bool) -> Fault | None:
    """Why a step's container cannot run. `refers`: it names secrets, which is what its configuration then lacks."""
    if container.state == "terminated" and container.reason in _NOT_STARTED:
        return Fault(Reason.START_FAILED, f"image {image}: {container.message}")
    reason = _WAITING.get(container.reason) if container.state == "waiting" else None
    if reason is None:
        return None
    if container.reason == "CreateContainerConfigError" and refers:
        reason = Reason.SECRET_NOT_FOUND
    return Fault(reason, f"image {image}: {container.reason}: {container.message}")


def of_pod(pod: Seen) -> Fault | None:
    """Why the pod is gone with its volume; None: it is not, or its deletion has not got that far."""
    if pod.reason == "Evicted" and not pod.disrupted:  # the one eviction that is no disruption: its own limit on disk space
        return Fault(Reason.DISK_FULL, f"the job's pod was evicted: {pod.message}")
    if pod.disrupted and (pod.deleted or pod.phase == "Failed"):
        return Fault(Reason.EVICTED, f"the job's pod was taken from its node: {pod.message or pod.disrupted}")
    if pod.deleted:
        return Fault(Reason.LOST, "the job's pod was deleted")
    if not pod.begun and (why := without_runner(pod)):
        return why
    if pod.phase in ("Failed", "Succeeded"):
        return Fault(Reason.LOST, f"the job's pod has ended: {pod.message or pod.reason or pod.phase}")
    return None


def without_runner(pod: Seen) -> Fault | None:
    """Of a pod in which nothing was ordered: a box of it did not start, and the runner may be what it lacked.

    A pod that has the init container cannot have lacked it.
    """
    boxes = [container for name, container in pod.containers.items() if names.step_of(name) is not None]
    if names.INSTALL in pod.containers or not any(box.state == "terminated" and box.reason in _NOT_STARTED for box in boxes):
        return None
    return Fault(Reason.LOST, f"the job's pod came up without the runner: {not_up(pod)}")


def not_up(pod: Seen | None) -> str:
    """What keeps a pod from coming up, as far as the cluster says."""
    if pod is None:
        return "its Job has made none"
    held_up = [f"{name}: {container.reason} {container.message}".strip() for name, container in pod.containers.items() if container.state == "waiting"]
    keeper = [text for text in held_up if text.startswith(names.KEEPER)]
    return pod.unscheduled or "; ".join(keeper or held_up) or f"it is {pod.phase}"
