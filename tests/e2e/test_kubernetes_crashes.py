"""Whatever happens to an operator or a pod in a cluster, an acknowledged job ends as docs/kubernetes.md says, and nothing is left."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from kit.clustered import Clustered
from kit.images import Images
from kit.nodes import ImagesOnNodes, NodeImages
from kit.process import until

FULL = pytest.mark.full
MIB = 2**20
Serve = Callable[..., Clustered]


@pytest.fixture(scope="module")
def image(engine: Any, node_images: NodeImages) -> Images:
    return ImagesOnNodes(engine, node_images)


def steps(image: Images, *scripts: str, **fields: Any) -> dict[str, Any]:
    return {"steps": [{"source": image.shell(script)} for script in scripts], **fields}


def chain(image: Images, seconds: float = 0.5) -> dict[str, Any]:
    """Three steps; each attempt says once that it ran."""
    return steps(image, *(f"echo ran {number} >&2; cat; sleep {seconds}; echo {number}" for number in range(3)))


def ended_well(dray: Clustered, job_id: str) -> None:
    record = dray.wait(job_id, 120)
    assert record["status"] == "complete", record
    assert dray.output(job_id) == b"0\n1\n2\n"
    assert [line for line in dray.log(job_id) if line.startswith("ran")] == ["ran 0", "ran 1", "ran 2"]


def delete_pod(dray: Clustered, job_id: str) -> None:
    (pod,) = dray.pods(job_id)
    dray.namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")


def until_running(dray: Clustered, job_id: str, step: int) -> None:
    until(lambda: dray.record(job_id)["steps"][step]["state"] == "running", 60, f"step {step} runs")


# --- the operator


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=FULL), pytest.param(3, marks=FULL)])
def test_an_operator_killed_at_any_instant_changes_nothing(serve_on_cluster: Serve, image: Images, seed: int) -> None:
    dray, chance, posted = serve_on_cluster(), random.Random(seed), []
    for _ in range(5):
        posted.append(dray.post(chain(image)))
        time.sleep(chance.uniform(0, 3))
        dray.kill()
        dray.start()
    for job_id in posted:
        ended_well(dray, job_id)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("away", [10, pytest.param(600, marks=FULL)])
def test_log_and_output_are_complete_where_the_operator_was_away_after_the_last_step(serve_on_cluster: Serve, image: Images, away: float) -> None:
    dray = serve_on_cluster()
    job_id = dray.post(chain(image, seconds=1))
    until_running(dray, job_id, 0)
    dray.kill()
    time.sleep(away)
    dray.start()
    ended_well(dray, job_id)


@pytest.mark.timeout(300)
def test_what_a_job_had_in_the_cluster_is_removed_by_the_operator_that_comes_after_a_kill(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster()
    job_id = dray.post(steps(image, "sleep 600"))
    until_running(dray, job_id, 0)
    dray.kill()
    dray.start()
    assert dray.http.post(f"/jobs/{job_id}/cancel").status_code in (200, 202)
    assert dray.wait(job_id)["reason"] == "cancelled"
    until(lambda: not dray.pods(job_id), 30, "its pod is gone")


# --- the pod


@pytest.mark.timeout(300)
def test_a_pod_deleted_under_a_step_is_lost_and_with_retries_tried_again_in_a_new_one(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster()
    lost, tried = dray.post(steps(image, "sleep 600", "cat")), dray.post({"steps": [_twice(image)]})
    for job_id in (lost, tried):
        until_running(dray, job_id, 0)
        delete_pod(dray, job_id)
    record = dray.wait(lost)
    assert (record["status"], record["reason"], record["fault"]) == ("error", "lost", "infrastructure")
    record = dray.wait(tried, 120)
    assert (record["status"], record["steps"][0]["attempt"], dray.output(tried)) == ("complete", 2, b"2\n")


def _twice(image: Images) -> dict[str, Any]:
    return {"source": image.shell("test $DRAY_ATTEMPT = 2 || sleep 600; echo $DRAY_ATTEMPT"), "retries": 1}


@pytest.mark.timeout(300)
def test_a_new_pod_goes_on_from_the_output_that_is_kept(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster()
    job_id = dray.post({"steps": [{"source": image("echo", "kept")}, {"source": image.shell("test $DRAY_ATTEMPT = 2 || sleep 600; cat"), "retries": 1}]})
    until_running(dray, job_id, 1)
    time.sleep(2)  # what a step passes on is kept in the background
    delete_pod(dray, job_id)
    record = dray.wait(job_id, 120)
    assert (record["status"], record["steps"][0]["attempt"], dray.output(job_id)) == ("complete", 1, b"kept\n")


@pytest.mark.timeout(300)
def test_a_step_killed_for_memory_is_tried_again_and_says_so(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster()
    script = "exec head -c 100000000 /dev/zero | tail -c 90000000"
    job_id = dray.post({"steps": [{"source": image.shell(script), "resources": {"memory": "20Mi"}}]})
    assert dray.wait(job_id)["reason"] == "out_of_memory"


@pytest.mark.timeout(300)
def test_steps_marked_always_run_in_a_new_pod_where_theirs_was_taken(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster()
    job_id = dray.post({"steps": [{"source": image.shell("sleep 600")}, {"source": image.shell("echo $DRAY_STATUS $DRAY_REASON"), "always": True}]})
    until_running(dray, job_id, 0)
    delete_pod(dray, job_id)
    assert dray.wait(job_id, 120)["reason"] == "lost"
    assert dray.log(job_id) == ["error lost"]


# --- how a job is stopped


@pytest.mark.timeout(300)
def test_cancel_and_timeout_end_a_job_also_one_whose_pod_is_not_up(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster()
    nowhere = dray.post(steps(image, "true", kubernetes={"nodeSelector": {"no/such": "node"}}))
    slow = dray.post(steps(image, "echo first; sleep 600", timeout=5))
    until(lambda: bool(dray.pods(nowhere)), 30, "its pod waits")
    dray.http.post(f"/jobs/{nowhere}/cancel")
    assert dray.wait(nowhere, 10)["reason"] == "cancelled"
    assert dray.wait(slow)["reason"] == "timed_out"
    assert dray.log(slow) == ["first"]


@pytest.mark.timeout(300)
def test_a_pod_that_no_node_takes_says_why(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster(DRAY_PENDING="3")
    record = dray.run(steps(image, "true", kubernetes={"nodeSelector": {"no/such": "node"}}))
    assert (record["reason"], record["fault"]) == ("unschedulable", "infrastructure")
    assert "node" in record["message"]


def test_what_the_backend_cannot_do_is_refused_with_its_field(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster()
    for field, asked in (("network", "none"), ("kubernetes.namespace", {"namespace": "kube-system"}), ("kubernetes.root", {"root": True})):
        answer = dray.http.post("/jobs", json=steps(image, "true", **{field.partition(".")[0]: asked}))
        assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, [field])


# --- much


@pytest.mark.timeout(300)
def test_the_first_line_is_seen_while_the_step_runs(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster()
    job_id = dray.post(steps(image, "echo out; echo err >&2; sleep 600"))
    until_running(dray, job_id, 0)
    until(lambda: sorted(dray.log(job_id)) == ["err", "out"], 5, "its lines")
    dray.http.post(f"/jobs/{job_id}/cancel")
    dray.wait(job_id)
    assert sorted(dray.log(job_id)) == ["err", "out"]


@FULL
@pytest.mark.timeout(900)
def test_a_log_of_200_mib_is_complete(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster(DRAY_LOG_CAP="1GiB")
    line, count = "x" * 99, 200 * MIB // 100
    job_id = dray.post(steps(image, f"yes {line} | head -n {count}", "wc -c"))
    assert dray.wait(job_id, 600)["status"] == "complete"
    assert dray.output(job_id).strip() == str(count * 100).encode()
    assert dray.log(job_id, count - 1)[0] == line
    assert len(dray.log(job_id, count)) == 1


@FULL
@pytest.mark.timeout(900)
def test_an_output_of_256_mib_is_exact(serve_on_cluster: Serve, image: Images) -> None:
    dray = serve_on_cluster()
    job_id = dray.post(steps(image, "head -c 268435456 /dev/urandom", "cat", "sha256sum"))
    record = dray.wait(job_id, 600)
    assert record["status"] == "complete"
    assert dray.output(job_id)[:64].decode() == record["steps"][1]["sha256Out"] == record["steps"][0]["sha256Out"]
    assert record["steps"][1]["bytesOut"] == 256 * MIB
