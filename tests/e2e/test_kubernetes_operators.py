"""Several operators with one Redis and one cluster: a job's pod goes on, whoever looks after it, and nothing in it runs twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from test_operators import Jobs, hasty, jobs  # noqa: F401 (fixtures)

from kit.clustered import Clustered
from kit.images import Images
from kit.kubernetes import JobNamespace, require_drayjobs
from kit.nodes import ImagesOnNodes, NodeImages
from kit.process import Process, until

Operator = Callable[[], Process]


@pytest.fixture(scope="module")
def image(engine: Any, node_images: NodeImages) -> Images:
    return ImagesOnNodes(engine, node_images)


@pytest.fixture
def operator(start: Callable[..., Process], hasty: dict[str, str], job_namespace: JobNamespace, node_images: NodeImages) -> Operator:  # noqa: F811
    """operator(): one more, with the permissions that the docs name."""
    return lambda: start("operator", "--backend", "kubernetes", "--image", node_images.ours, KUBECONFIG=str(job_namespace.kubeconfig), **hasty)


def _slow(image: Images) -> list[dict[str, Any]]:
    """Each attempt says once that it ran."""
    return [{"source": image.shell(f"echo ran {number} >&2; cat; sleep 2; echo {number}")} for number in range(3)]


def _ran_once(jobs: Jobs, job_id: str) -> None:  # noqa: F811
    record = jobs.wait(job_id, 120)
    assert (record["status"], [step["attempt"] for step in record["steps"]]) == ("complete", [1, 1, 1]), record
    assert jobs.output(job_id) == b"0\n1\n2\n"
    lines = jobs.http.get(f"/jobs/{job_id}/log").json()["lines"]
    assert [line for line in lines if line.startswith("ran")] == ["ran 0", "ran 1", "ran 2"]


def _gone(namespace: JobNamespace, job_id: str) -> None:
    until(lambda: namespace.pods(job_id) == [], 60, "its pod is gone")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "paused"])
def test_a_job_goes_on_in_its_pod_with_another_operator(
    operator: Operator,
    jobs: Jobs,  # noqa: F811
    image: Images,
    job_namespace: JobNamespace,
    how: signal.Signals,
) -> None:
    first = operator()
    job_id = jobs.post(*_slow(image))
    jobs.begun(job_id, 0)
    (pod,) = job_namespace.pods(job_id)
    operator()
    first.signal(how)
    jobs.begun(job_id, 1)
    assert [found["metadata"]["uid"] for found in job_namespace.pods(job_id)] == [pod["metadata"]["uid"]]
    if how is signal.SIGSTOP:
        time.sleep(2)  # past its lease, so the other has the job
        first.signal(signal.SIGCONT)
    _ran_once(jobs, job_id)
    _gone(job_namespace, job_id)


@pytest.mark.timeout(300)
def test_operators_side_by_side_share_the_jobs_and_leave_each_others_pods_alone(
    operator: Operator,
    jobs: Jobs,  # noqa: F811
    image: Images,
    job_namespace: JobNamespace,
) -> None:
    operator()
    ids = [jobs.post(*_slow(image)) for _ in range(6)]
    operator()
    for job_id in ids:
        _ran_once(jobs, job_id)
    for job_id in ids:
        _gone(job_namespace, job_id)


@pytest.mark.timeout(300)
def test_a_drayjob_runs_as_a_pod_of_its_own_namespace_unless_it_names_another_backend(
    serve_on_cluster: Callable[..., Clustered], image: Images, job_namespace: JobNamespace
) -> None:
    require_drayjobs()
    dray = serve_on_cluster("--kubernetes", "--namespaces", job_namespace.name)
    job_namespace.kubectl("create", "secret", "generic", "pair", "--from-literal=word=hidden")
    reference = {"secretKeyRef": {"name": "pair", "key": "word"}}
    says = {"source": image.shell("echo $WORD; echo told $WORD >&2"), "environment": [{"variable": "WORD", "valueFrom": reference}]}
    job_namespace.apply("elsewhere", image("true"), backend="docker")
    job_namespace.apply("in-a-pod", says, image("wc", "-c"), backend="kubernetes")
    status = job_namespace.wait("in-a-pod", within=120)
    assert (status["status"], status["stepsCompleted"]) == ("complete", 2)
    assert (dray.output(status["jobID"]), dray.log(status["jobID"])) == (b"7\n", ["******", "told ******", "7"])
    assert job_namespace.status("elsewhere")["status"] == "waiting"
    job_namespace.delete("in-a-pod", "elsewhere")
    until(lambda: dray.pods() == [], 60, "its pod is gone")
