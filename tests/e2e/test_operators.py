"""Several operators on one Redis: which one has a job, and what becomes of it when that one dies, pauses or is told to stop."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from kit.dockerd import Dockerd
from kit.images import Images
from kit.process import Process, until

Start = Callable[..., Process]
NewClient = Callable[[], httpx.Client]
Engines = tuple[dict[str, str], dict[str, str]]


@pytest.fixture
def hasty(shared: dict[str, str]) -> dict[str, str]:
    """What joins the operators of a test, which do not wait long for each other."""
    return {**shared, "DRAY_LEASE": "1", "DRAY_TAKEOVER": "1", "DRAY_DISK_FLOOR": "0"}


@pytest.fixture
def engines(own_dockerd: Callable[..., Dockerd], hasty: dict[str, str]) -> Engines:
    """For one operator the engine that all tests use, for the other one of its own."""
    return hasty, {**hasty, "DOCKER_HOST": own_dockerd().host}


class Jobs:
    """A client's hand on the jobs of a test."""

    def __init__(self, client: httpx.Client) -> None:
        self.http = client

    def post(self, *steps: dict[str, Any], **fields: Any) -> str:
        return str(self.http.post("/jobs", json={"steps": steps, **fields}).raise_for_status().json()["id"])

    def record(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/jobs/{job_id}").raise_for_status().json()
        return found

    def wait(self, job_id: str, within: float = 60) -> dict[str, Any]:
        until(lambda: self.record(job_id)["status"] != "running", within, f"job ended: {self.record(job_id)}")
        return self.record(job_id)

    def begun(self, job_id: str, step: int) -> None:
        until(lambda: self.record(job_id)["steps"][step]["state"] == "running", 30, f"step {step + 1} runs")

    def output(self, job_id: str) -> bytes:
        return self.http.get(f"/jobs/{job_id}/output").raise_for_status().content


@pytest.fixture
def jobs(start_api: NewClient) -> Jobs:
    return Jobs(start_api())


def test_a_job_whose_operator_is_killed_goes_on_on_the_same_engine_as_if_nothing_had_been(
    start: Start, hasty: dict[str, str], jobs: Jobs, image: Images
) -> None:
    first = start("operator", **hasty)
    slow = image.shell("cat; sleep 1; echo on")
    job_id = jobs.post({"source": slow}, {"source": slow}, {"source": slow})
    jobs.begun(job_id, 0)
    start("operator", **hasty)
    first.kill()
    record = jobs.wait(job_id)
    assert record["status"] == "complete", record
    assert jobs.output(job_id) == b"on\n" * 3
    assert [step["attempt"] for step in record["steps"]] == [1, 1, 1]


WITH_ITS_INPUT, FROM_THE_START = ("64KiB", [1, 2, 2]), ("0", [2, 2, 2])
"""DRAY_KEEP_OUTPUTS, and the attempts with which the steps end."""


@pytest.mark.parametrize("kept", [WITH_ITS_INPUT, FROM_THE_START], ids=["with its input", "from the start"])
def test_a_job_whose_engine_is_gone_goes_on_on_another(
    start: Start, engines: Engines, jobs: Jobs, image: Images, engine: Any, kept: tuple[str, list[int]]
) -> None:
    (hasty, elsewhere), (keep, attempts) = engines, kept
    other = Images(_engine(elsewhere))
    scripts = ["echo one", "cat; [ $DRAY_ATTEMPT != 1 ] || sleep 30; echo two", "cat; echo three"]
    assert [image.shell(script) for script in scripts] == [other.shell(script) for script in scripts]
    first = start("operator", **hasty, DRAY_KEEP_OUTPUTS=keep)
    job_id = jobs.post(*({"source": image.shell(script)} for script in scripts))
    jobs.begun(job_id, 1)
    time.sleep(0.5)
    first.kill()
    second = start("operator", **elsewhere, DRAY_KEEP_OUTPUTS=keep)
    record = jobs.wait(job_id)
    assert record["status"] == "complete", record
    assert jobs.output(job_id) == b"one\ntwo\nthree\n"
    assert [step["attempt"] for step in record["steps"]] == attempts
    assert record["steps"][1]["attempts"][0]["reason"] == "lost"
    assert second.stop() == 0
    start("operator", **hasty)
    until(lambda: _left(engine, job_id) == [], 30, "what was on the first engine is swept by the next operator there")


def _left(engine: Any, job_id: str) -> list[Any]:
    found: list[Any] = engine.containers.list(all=True, filters={"label": f"dray.job={job_id}"}, ignore_removed=True)
    return found


def _engine(environment: dict[str, str]) -> Any:
    return docker.DockerClient(base_url=environment["DOCKER_HOST"], timeout=60)


def test_a_paused_operator_whose_job_went_on_elsewhere_records_nothing_of_it(start: Start, engines: Engines, jobs: Jobs, image: Images, engine: Any) -> None:
    hasty, elsewhere = engines
    script = "[ $DRAY_ATTEMPT != 1 ] || sleep 4; echo attempt $DRAY_ATTEMPT"
    assert Images(_engine(elsewhere)).shell(script) == image.shell(script)
    paused = start("operator", **hasty)
    job_id = jobs.post({"source": image.shell(script)})
    jobs.begun(job_id, 0)
    paused.signal(signal.SIGSTOP)
    start("operator", **elsewhere)
    record = jobs.wait(job_id)
    assert record["status"] == "complete", record
    assert jobs.output(job_id) == b"attempt 2\n"
    paused.signal(signal.SIGCONT)
    until(lambda: _left(engine, job_id) == [], 30, "the first one removes what it had of the job")
    assert jobs.record(job_id) == record
    assert jobs.http.get(f"/jobs/{job_id}/log").json()["lines"] == ["attempt 2"]


def test_told_to_stop_an_operator_that_finishes_begins_nothing_more_and_ends_with_its_last_job(
    start: Start, hasty: dict[str, str], jobs: Jobs, image: Images
) -> None:
    operator = start("operator", **hasty, DRAY_DRAIN="finish", DRAY_JOBS="1")
    slow = image.shell("sleep 2; echo done")
    running, waiting = jobs.post({"source": slow}), jobs.post({"source": slow})
    jobs.begun(running, 0)
    assert operator.stop() == 0
    assert jobs.record(running)["status"] == "complete"
    assert jobs.record(waiting)["startedAt"] is None


def test_an_operator_killed_between_a_failure_and_the_next_attempt_is_followed_by_one_that_makes_it(
    start: Start, hasty: dict[str, str], jobs: Jobs, image: Images
) -> None:
    first = start("operator", **hasty)
    flaky = {"source": image.shell("cat; test $DRAY_ATTEMPT = 2"), "retries": 1}
    job_id = jobs.post({"source": image.shell("echo in")}, flaky, {"source": image("cat")})
    until(lambda: bool(jobs.record(job_id)["steps"][1]["attempts"]), 30, "the first attempt has failed")
    first.kill()
    start("operator", **hasty)
    record = jobs.wait(job_id)
    assert record["status"] == "complete", record
    assert jobs.output(job_id) == b"in\n"
    assert record["steps"][1]["attempt"] == 2


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.full)])
def test_a_job_cancelled_just_as_a_step_ends_says_what_really_ran(start: Start, hasty: dict[str, str], jobs: Jobs, image: Images, count: int) -> None:
    start("operator", **hasty)
    step = {"source": image.shell("echo begun; sleep 0.1; echo over")}
    chance = random.Random(1)
    for _ in range(count):
        job_id = jobs.post(step, step, step)
        time.sleep(chance.uniform(0.1, 1.2))
        answer = jobs.http.post(f"/jobs/{job_id}/cancel")
        record = jobs.wait(job_id)
        lines = jobs.http.get(f"/jobs/{job_id}/log").json()["lines"]
        assert answer.status_code in (200, 202) or (answer.status_code, record["status"]) == (409, "complete"), answer.text
        assert (record["status"], record.get("reason")) in [("complete", None), ("error", "cancelled")], record
        assert lines.count("over") - record["stepsCompleted"] in (0, 1), (record, lines)  # 1: told between its last line and its end
        assert lines.count("begun") - lines.count("over") in (0, 1)


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(1200)])])
def test_many_jobs_at_once_begin_in_order_of_arrival_with_flat_memory_and_files(
    start: Start, hasty: dict[str, str], jobs: Jobs, image: Images, count: int
) -> None:
    operator = start("operator", **hasty, DRAY_JOBS="4", LOG_LEVEL="warn")
    ids = [jobs.post({"source": image("true")}) for _ in range(count)]
    jobs.wait(ids[count // 6], 600)
    before = _footprint(operator)
    for job_id in ids:
        assert jobs.wait(job_id, 600)["status"] == "complete"
    memory, files = _footprint(operator)
    assert memory <= before[0] + 16 * 2**20
    assert files <= before[1] + 16
    begun = [jobs.record(job_id)["startedAt"] for job_id in ids]
    assert begun == sorted(begun)


def _footprint(process: Process) -> tuple[int, int]:
    """Bytes of memory, and open files."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]) * 1024, len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
