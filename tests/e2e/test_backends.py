"""Operators of both backends on one Redis: a job that names one runs there, and waits while there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import docker
import httpx
import pytest

from kit.images import Images
from kit.kubernetes import JobNamespace
from kit.nodes import ImagesOnNodes, NodeImages
from kit.process import Process, until

Start = Callable[..., Process]


@pytest.fixture
def on_nodes(engine: docker.DockerClient, node_images: NodeImages) -> Images:
    return ImagesOnNodes(engine, node_images)


@pytest.fixture
def operate(start: Start, shared: dict[str, str], node_images: NodeImages, job_namespace: JobNamespace) -> Callable[[str], Process]:
    """operate("kubernetes"): an operator of that backend, on the same Redis as the others."""
    return lambda backend: start(
        *("operator", "--backend", backend, "--image", node_images.ours), **shared, DRAY_SANDBOXES="0", KUBECONFIG=str(job_namespace.kubeconfig)
    )


@pytest.fixture
def where(engine: docker.DockerClient, job_namespace: JobNamespace) -> Callable[[str], list[str]]:
    """The backends on which something of a job is."""

    def look(job_id: str) -> list[str]:
        containers = engine.containers.list(all=True, ignore_removed=True, filters={"label": f"dray.job={job_id}"})
        return ["docker"] * bool(containers) + ["kubernetes"] * bool(job_namespace.pods(job_id))

    return look


def _post(client: httpx.Client, query: str = "", **job: Any) -> str:
    answer = client.post(f"/jobs{query}", json=job)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _record(client: httpx.Client, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
    return found


def test_a_job_runs_on_the_backend_that_it_names_and_waits_for_it(
    start_api: Callable[[], httpx.Client], operate: Callable[[str], Process], where: Callable[[str], list[str]], image: Images, on_nodes: Images
) -> None:
    client = start_api()
    operate("docker")
    words = {"command": ["sleep", "300"]}
    away = _post(client, backend="kubernetes", kubernetes={"labels": {"a": "b"}}, steps=[{"source": on_nodes("sleep"), **words}])
    here = _post(client, backend="docker", steps=[{"source": image("sleep"), **words}])
    until(lambda: _record(client, here)["steps"][0]["state"] == "running", 30, "the one for Docker runs")
    assert _record(client, away)["startedAt"] is None
    assert client.post("/jobs?preflight=true", json={"backend": "kubernetes", "steps": [{"source": on_nodes("true")}]}).status_code == 503

    operate("kubernetes")
    until(lambda: _record(client, away)["steps"][0]["state"] == "running", 60, "the one for Kubernetes runs")
    assert (where(here), where(away)) == (["docker"], ["kubernetes"])
    pinned = _post(client, "?preflight=true", backend="kubernetes", steps=[{"source": on_nodes("echo", "hello")}])
    until(lambda: _record(client, pinned)["status"] == "complete", 60, "one whose image an operator of Kubernetes has found is complete")
    assert client.get(f"/jobs/{pinned}/output").content == b"hello\n"

    for job_id in (here, away):
        client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    until(lambda: not any(where(job_id) for job_id in (here, away, pinned)), 60, "nothing is left of them")
