"""Whatever is killed, an acknowledged job ends as docs/architecture.md ("What a crash means") says, and nothing is left.

Each step writes `ran N` to its log, so an attempt that ran twice would show; complete jobs must have the right output.
The instants are random but seeded; `make test-full` kills as often as the issue asks.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from docker.errors import APIError, NotFound
from redis import Redis

from kit.dockerd import Dockerd
from kit.images import Images
from kit.process import until
from kit.serving import Served

FULL = os.environ.get("DRAY_TEST_FULL") == "1"
STEPS = 4


def a_job(image: Images, seconds: float = 0.2) -> dict[str, Any]:
    """Its output is `0 1 2 3`, a line each; its log, besides, each step's `ran N` once."""
    scripts = [f"echo ran {step} >&2; cat; sleep {seconds}; echo {step}" for step in range(STEPS)]
    return {"steps": [{"source": image.shell(script)} for script in scripts]}


OUTPUT = "".join(f"{step}\n" for step in range(STEPS)).encode()


def ended_truthfully(dray: Served, job_id: str, reasons: tuple[str, ...]) -> str:
    """Its status, after a look at all that must hold. `reasons`: with which it may have failed."""
    record = dray.wait(job_id, 120)
    log = dray.log(job_id)
    runs = [line for line in log if line.startswith("ran ")]
    assert len(runs) == len(set(runs)), f"an attempt ran twice: {log}"
    if record["status"] == "complete":
        assert dray.output(job_id) == OUTPUT
        assert runs == [f"ran {step}" for step in range(STEPS)]
    else:
        assert record["reason"] in reasons, record
        assert record["stepsCompleted"] < STEPS
    return str(record["status"])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3] if FULL else [1])
def test_an_operator_killed_at_any_instant_changes_nothing(dray: Served, image: Images, seed: int) -> None:
    chance, jobs, posted = random.Random(seed), a_job(image), []
    for _ in range(20 if FULL else 8):
        posted += [dray.post(jobs) for _ in range(2)]
        time.sleep(chance.uniform(0, 1.5))
        dray.kill()
        dray.start()
    assert {ended_truthfully(dray, job_id, ()) for job_id in posted} == {"complete"}


@pytest.mark.timeout(300)
def test_steps_go_on_while_the_operator_is_away(dray: Served, image: Images) -> None:
    job_id = dray.post(a_job(image, seconds=1))
    time.sleep(1.5)
    dray.kill()
    time.sleep(2)
    dray.start()
    record = dray.wait(job_id)
    assert ended_truthfully(dray, job_id, ()) == "complete"
    assert record["steps"][1]["finishedAt"] < record["steps"][2]["startedAt"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["box", "sandbox"])
def test_containers_killed_at_any_instant(dray: Served, image: Images, what: str) -> None:
    chance, job = random.Random(what), a_job(image)
    for _ in range(20 if FULL else 6):
        job_id = dray.post(job)
        time.sleep(chance.uniform(0.1, 1.5))
        for container in dray.containers(job_id):
            if ("dray.step" in container.labels) == (what == "box"):
                _kill(container)
                break
        ended_truthfully(dray, job_id, ("lost",))


@pytest.mark.timeout(300)
def test_a_step_killed_while_it_ran_is_lost_and_the_next_never_begins(dray: Served, image: Images) -> None:
    job_id = dray.post(a_job(image, seconds=5))
    while dray.record(job_id)["steps"][0]["state"] != "running":
        time.sleep(0.01)
    _kill(next(container for container in dray.containers(job_id) if container.labels.get("dray.step") == "0"))
    record = dray.wait(job_id)
    assert (record["status"], record["reason"], record["stepsCompleted"]) == ("error", "lost", 0)
    assert dray.log(job_id) == ["ran 0"]


@pytest.mark.timeout(300)
def test_a_gated_step_that_is_killed_is_made_again(dray: Served, image: Images) -> None:
    job_id = dray.post(a_job(image, seconds=1.5))
    ahead: list[Any] = []
    while not ahead:
        ahead = [found for found in dray.containers(job_id) if found.labels.get("dray.step") == "1" and found.status == "running"]
    _kill(ahead[0])
    assert ended_truthfully(dray, job_id, ()) == "complete"


@pytest.mark.timeout(600)
def test_redis_killed_at_any_instant_changes_nothing(dray: Served, image: Images) -> None:
    chance, job, posted = random.Random(4), a_job(image), []
    for _ in range(12 if FULL else 4):
        posted.append(dray.post(job))
        time.sleep(chance.uniform(0, 1.2))
        with Redis(unix_socket_path=f"{dray.data_dir}/redis/redis.sock") as client:
            os.kill(client.info("server")["process_id"], 9)
        _wait_ready(dray)
    assert {ended_truthfully(dray, job_id, ()) for job_id in posted} == {"complete"}


def test_ctrl_c_ends_dray_before_its_redis(dray: Served) -> None:
    """A terminal signals all that was started from it."""
    os.killpg(dray.process.pid, signal.SIGINT)
    until(lambda: not dray.running, 20, "it has ended")
    assert dray.process.code == 0
    assert "redis-server ended" not in dray.process.output


@pytest.mark.timeout(300)
def test_everything_killed_together_changes_nothing(dray: Served, image: Images) -> None:
    job_id = dray.post(a_job(image))
    time.sleep(0.7)
    with Redis(unix_socket_path=f"{dray.data_dir}/redis/redis.sock") as client:
        server = client.info("server")["process_id"]
    dray.kill()
    os.kill(server, 9)
    dray.start()
    assert ended_truthfully(dray, job_id, ()) == "complete"


# --- the engine


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_an_engine_restarted_while_jobs_run(own_dockerd: Callable[..., Dockerd], serve: Callable[..., Served], how: str) -> None:
    dockerd = own_dockerd()
    chance, job = random.Random(how), a_job(Images(dockerd.engine))
    dray = serve(DOCKER_HOST=dockerd.host, DRAY_DISK_FLOOR="0")
    dray.engine = dockerd.engine
    for _ in range(5 if FULL else 2):
        ids = [dray.post(job) for _ in range(3)]
        time.sleep(chance.uniform(0.2, 2))
        dockerd.kill() if how == "kill" else dockerd.stop()
        ids.append(dray.post(job))  # with the engine away: acknowledged all the same
        dockerd.start()
        dray.engine = dockerd.engine
        statuses = [ended_truthfully(dray, job_id, ("lost", "exit_code")) for job_id in ids]  # exit_code: the engine sends TERM
        assert statuses[-1] == "complete"


def _kill(container: Any) -> None:
    try:
        container.kill()
    except (NotFound, APIError):
        return  # it ended meanwhile


def _wait_ready(dray: Served) -> None:
    deadline = time.monotonic() + 30
    while dray.http.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, "not ready again"
        time.sleep(0.05)
