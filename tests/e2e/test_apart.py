"""API and operator as processes of their own, which meet in a shared Redis and an output store."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from redis import Redis

from kit.dray import answers, client
from kit.images import Images
from kit.process import Process, free_port, until

Start = Callable[..., Process]
NewClient = Callable[[], httpx.Client]


def complete(client: httpx.Client, job_id: str) -> bool:
    return bool(client.get(f"/jobs/{job_id}").json()["status"] == "complete")


def test_jobs_posted_while_no_operator_runs_are_done_when_one_comes(start: Start, start_api: NewClient, shared: dict[str, str], image: Images) -> None:
    first, second = start_api(), start_api()
    posted = {"steps": [{"source": image("head", "-c", "300000", "/dev/zero")}, {"source": image("cat")}]}
    job_id = first.post("/jobs", json=posted).json()["id"]
    assert first.get(f"/jobs/{job_id}").json()["status"] == "running"
    start("operator", **shared)
    until(lambda: complete(second, job_id), 30, "the job is complete")
    assert second.get(f"/jobs/{job_id}/output").content == bytes(300000)
    assert first.delete(f"/jobs/{job_id}").status_code == 204
    assert second.get(f"/jobs/{job_id}").status_code == 404


def test_an_input_reaches_an_operator_on_the_same_output_store_only(
    start: Start, start_api: NewClient, shared: dict[str, str], image: Images, tmp_path: Path
) -> None:
    client, job = start_api(), json.dumps({"steps": [{"source": image("wc", "-c")}]})
    operator = start("operator", **shared | {"DRAY_OUTPUTS": (tmp_path / "elsewhere").as_uri()})
    small = client.post("/filter", content=b"x" * 1000, headers={"Dray-Job": job}, timeout=60)
    assert small.content == b"1000\n"
    answer = client.post("/filter", content=b"x" * 100_000, headers={"Dray-Job": job}, timeout=60)
    assert (answer.status_code, answer.json()["job"]["reason"]) == (502, "input_damaged")
    assert "DRAY_OUTPUTS" in answer.json()["detail"]
    operator.stop()
    start("operator", **shared)
    assert client.post("/filter", content=b"x" * 100_000, headers={"Dray-Job": job}, timeout=60).content == b"100000\n"


def test_an_operator_stopped_in_the_middle_is_followed_by_another(start: Start, start_api: NewClient, shared: dict[str, str], image: Images) -> None:
    client = start_api()
    first = start("operator", **shared)
    slow = image.shell("cat; sleep 1; echo on")
    job_id = client.post("/jobs", json={"steps": [{"source": slow}] * 3}).json()["id"]
    until(lambda: client.get(f"/jobs/{job_id}").json()["steps"][0]["state"] == "running", 30, "the first step runs")
    first.signal(signal.SIGTERM)
    until(lambda: first.code is not None, 20, "the first operator has ended")
    assert first.code == 0
    start("operator", **shared)
    until(lambda: complete(client, job_id), 30, "the job is complete")
    assert client.get(f"/jobs/{job_id}/output").content == b"on\n" * 3


def test_an_operator_tells_of_itself_on_a_port_of_its_own(start: Start, shared: dict[str, str]) -> None:
    port = free_port()
    start("operator", "--metrics-port", str(port), **shared)
    with client(f"http://127.0.0.1:{port}") as asked:
        until(lambda: answers(asked), 30, "dray operator is ready")
        assert asked.get("/healthz").status_code == 200
        found = asked.get("/metrics")
        assert found.headers["Content-Type"].startswith("text/plain")
        assert "dray_lease_held 1.0" in found.text.splitlines()


@pytest.mark.parametrize("command", ["api", "operator"])
def test_without_a_redis_it_says_what_is_missing(start: Start, command: str) -> None:
    process = start(command, *(["--port", "0"] if command == "api" else []))
    until(lambda: process.code is not None, 20, "it has ended")
    assert process.code == 2
    assert "REDIS_URL is not set" in process.output


def test_a_redis_that_evicts_or_forgets_is_warned_of(start: Start, shared: dict[str, str]) -> None:
    with Redis(port=int(shared["REDIS_PORT"].rsplit(":", 1)[1])) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    process = start("operator", **shared)
    until(lambda: "maxmemory-policy" in process.output, 20, "it warns of eviction")
    assert "appendonly" in process.output
    until(lambda: "ready" in process.output, 20, "it has begun all the same")
