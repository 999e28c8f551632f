"""What a job's things are called in the cluster: each name and label is made in one function.

A pod's name, as a job's record has it, is `namespace/name`, the name being the Job's; the Pod's own is the Job controller's to make.
"""

from __future__ import annotations

from collections.abc import Mapping

from dray.record import Job
from dray.settings import Settings
from dray.spec import OBJECT_NAMESPACE

INSTANCE = "dray.instance"
POD = "dray.pod"
JOB = "dray.job"
KEEPER = "keeper"
INSTALL = "install"


def namespace(job: Job, settings: Settings, own: str) -> str:
    """Where the job runs: a DrayJob's in its own, another where it says, else where the settings say."""
    asked = job.spec.kubernetes.namespace if job.spec.kubernetes else None
    return job.spec.labels.get(OBJECT_NAMESPACE) or asked or settings.job_namespace or own


def pod(namespace: str, job_id: str, number: int) -> str:
    """`number`: how many the job had before."""
    return f"{namespace}/{of_job(job_id)}" + (f"-p{number}" if number else "")


def of_job(job_id: str) -> str:
    return f"dray-{job_id.lower()}"


def without_number(pod: str) -> str:
    """What `of_job` gave."""
    return parts(pod)[1].partition("-p")[0]


def parts(pod: str) -> tuple[str, str]:
    """Namespace and name."""
    namespace, _, name = pod.partition("/")
    return namespace, name


def labels(instance: str, pod: str, job_id: str) -> dict[str, str]:
    """Of the Job, its Pod and its Secret."""
    return {INSTANCE: instance, POD: parts(pod)[1], JOB: job_id}


def pod_of(metadata: Mapping[str, object], labels: Mapping[str, str]) -> str:
    return f"{metadata['namespace']}/{labels[POD]}"


def box(step: int) -> str:
    """The container of a step."""
    return f"step-{step}"


def step_of(container: str) -> int | None:
    """None: it is no step's."""
    kind, _, number = container.partition("-")
    return int(number) if kind == "step" and number.isdecimal() else None


def jobs(namespace: str | None, name: str = "") -> str:
    """The API server's path. None: of all namespaces."""
    return f"/apis/batch/v1/{f'namespaces/{namespace}/' if namespace else ''}jobs" + (f"/{name}" if name else "")


def secrets(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/secrets" + (f"/{name}" if name else "")


def account(namespace: str, name: str) -> str:
    """A ServiceAccount."""
    return f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"


def pods(namespace: str | None) -> str:
    """As with `jobs`."""
    return f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
