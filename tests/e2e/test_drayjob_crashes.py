"""DrayJobs when something goes away: the operator, one of two, Redis, the engine, the API server, a watch, the namespace."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import docker
import pytest

from kit.dockerd import Dockerd
from kit.dray import DRAY, environment
from kit.images import Images
from kit.kubernetes import Namespace, kubectl
from kit.process import Process, until
from kit.proxy import Proxy
from kit.redis import RedisServer
from kit.serving import Served

DELETED = '"drayjob: cancel"'
DELETE_WITHIN = 30  # seconds, of docs/kubernetes.md
TAKEN_OVER_WITHIN = 30
FULL = os.environ.get("DRAY_TEST_FULL") == "1"


@pytest.fixture
def team(namespace: Namespace) -> Namespace:
    return namespace


def options(team: Namespace) -> list[str]:
    return ["--kubernetes", "--namespaces", team.name]


@pytest.fixture
def operate(team: Namespace, engine: docker.DockerClient, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """operate(NAME="value"): a `dray operator` on the Redis of REDIS_URL."""
    with ExitStack() as made:
        count = iter(range(100))

        def make(**env: str) -> Process:
            own = environment() | {"KUBECONFIG": str(team.kubeconfig), "DRAY_OUTPUTS": (tmp_path / "outputs").as_uri(), "LOG_LEVEL": "debug"}
            number = next(count)
            command = [DRAY, "operator", "--data-dir", str(tmp_path / f"data-{number}"), *options(team)]
            process = Process(command, tmp_path / f"operator-{number}.log", own | env)
            made.callback(lambda: print(process.output[-8000:]))
            made.callback(process.stop)
            return process

        yield make


# --- the operator


def test_what_happened_while_no_operator_ran_is_dealt_with(team: Namespace, serve: Callable[..., Served], image: Images) -> None:
    dray = serve(*options(team), KUBECONFIG=str(team.kubeconfig))
    ended, running = team.apply("ended", image("true")), team.apply("running", image("sleep", "300"))
    held = team.apply("held", image("true"), suspend=True)
    team.wait(ended)
    team.wait(running, "Running")
    team.until_status(held, "suspended")
    dray.stop()
    team.delete(running, wait=False)
    team.kubectl("patch", "drayjob", ended, "--type=merge", "-p", '{"spec":{"ttlSecondsAfterFinished":0}}')
    team.kubectl("patch", "drayjob", held, "--type=merge", "-p", '{"spec":{"suspend":false}}')
    made = team.apply("made", image("true"))
    dray.start()
    team.wait(made)
    team.wait(held)
    until(lambda: set(team.all()) == {made, held}, 30, "the others are gone")


@pytest.mark.timeout(300)
def test_an_operator_killed_at_random_instants(team: Namespace, serve: Callable[..., Served], image: Images, tmp_path: Path) -> None:
    dray = serve(*options(team), KUBECONFIG=str(team.kubeconfig), DRAY_HOST_PATHS=str(tmp_path))
    tmp_path.chmod(0o777)
    chance = random.Random(7)
    names = []
    for instant in range(20 if FULL else 4):
        name = f"job-{instant}"
        script = image.shell(f"cat; echo {name} >> /data/runs; echo on")
        step = {"source": script, "mounts": [{"hostPath": str(tmp_path), "path": "/data"}]}
        names.append(team.apply(name, step, step))
        time.sleep(chance.uniform(0, 1.5))
        dray.kill()
        dray.start()
    for name in names:
        team.wait(name)
        assert team.events(name) == [("Normal", "Accepted"), ("Normal", "Running"), ("Normal", "Succeeded")]
    assert sorted((tmp_path / "runs").read_text().split()) == sorted(names * 2)


def test_one_of_two_operators_takes_over_and_no_job_runs_twice(
    team: Namespace, make_redis: Callable[..., RedisServer], operate: Callable[..., Process], image: Images, tmp_path: Path
) -> None:
    redis = make_redis()
    tmp_path.chmod(0o777)
    pair = [operate(REDIS_URL=redis.url, DRAY_HOST_PATHS=str(tmp_path)) for _ in range(2)]
    step = {"source": image.shell("sleep 1; echo run >> /data/runs"), "mounts": [{"hostPath": str(tmp_path), "path": "/data"}]}
    first = [team.apply(f"first-{number}", step) for number in range(3)]
    until(lambda: any("dealing with DrayJobs" in one.output for one in pair), 30, "one leads")
    leader = next(one for one in pair if "dealing with DrayJobs" in one.output)
    other = next(one for one in pair if one is not leader)
    team.wait(first[0], "Running")
    assert "dealing with DrayJobs" not in other.output
    leader.kill()
    killed = time.monotonic()
    second = team.apply("second", step)
    until(lambda: "dealing with DrayJobs" in other.output, TAKEN_OVER_WITHIN, "the other one has taken over")
    team.wait(second, within=round(TAKEN_OVER_WITHIN - (time.monotonic() - killed)) + 15)
    for name in first:
        team.wait(name)
    assert (tmp_path / "runs").read_text() == "run\n" * 4


# --- what it stands on


def test_a_deletion_ends_without_redis_and_without_the_engine(
    team: Namespace,
    make_redis: Callable[..., RedisServer],
    operate: Callable[..., Process],
    own_dockerd: Callable[..., Dockerd],
    image: Images,
) -> None:
    redis, dockerd = make_redis("--appendonly", "yes"), own_dockerd()
    long = Images(dockerd.engine)("sleep", "300")
    operator = operate(REDIS_URL=redis.url, DOCKER_HOST=dockerd.host, DRAY_DISK_FLOOR="0")
    without_engine, without_redis = team.apply("without-engine", long), team.apply("without-redis", long)
    for name in (without_engine, without_redis):
        team.wait(name, "Running")
    dockerd.kill()
    team.delete(without_engine, wait=False)
    until(lambda: DELETED in operator.output, 20, "its job is cancelled")
    redis.kill()
    team.delete(without_redis, wait=False)
    until(lambda: team.all() == {}, DELETE_WITHIN + 10, "both are gone")
    redis.start()
    dockerd.start()
    with redis.client() as client:
        until(lambda: client.keys("dray:job:*") == [], 60, "the jobs are gone too")
    assert operator.code is None


def test_an_api_server_that_goes_away_and_returns(team: Namespace, serve: Callable[..., Served], image: Images) -> None:
    proxy = Proxy(team.server)
    dray = serve(*options(team), KUBECONFIG=str(team.kubeconfig_at(f"https://{proxy.address}")))
    name = team.apply("meanwhile", image("sleep", "2"))
    team.wait(name, "Running")
    proxy.shut()
    job_id = team.status(name)["jobID"]
    assert dray.wait(job_id)["status"] == "complete"
    later = team.apply("later", image("true"))
    time.sleep(12)  # longer than the lease is kept
    proxy.open()
    assert team.wait(name)["jobID"] == job_id
    team.wait(later)
    proxy.close()


def test_a_watch_that_is_cut(team: Namespace, serve: Callable[..., Served], image: Images) -> None:
    proxy = Proxy(team.server)
    dray = serve(*options(team), KUBECONFIG=str(team.kubeconfig_at(f"https://{proxy.address}")))
    team.wait(team.apply("before", image("true")))
    for number in range(3):
        proxy.cut()
        team.wait(team.apply(f"cut-{number}", image("true")), within=20)
    assert dray.http.get("/readyz").status_code == 200
    proxy.close()


@pytest.mark.full
def test_a_watch_that_hangs(team: Namespace, serve: Callable[..., Served], image: Images) -> None:
    proxy = Proxy(team.server)
    dray = serve(*options(team), KUBECONFIG=str(team.kubeconfig_at(f"https://{proxy.address}")))
    team.wait(team.apply("before", image("true")))
    time.sleep(7)
    proxy.hang(quiet=6)
    team.wait(team.apply("hung", image("true")), within=60)
    assert "dray_kubernetes_watch_stalls_total 1.0" in dray.http.get("/metrics").text
    proxy.close()


def test_a_namespace_deleted_with_jobs_running(team: Namespace, serve: Callable[..., Served], image: Images) -> None:
    dray = serve("--kubernetes", KUBECONFIG=str(team.kubeconfig))
    going = Namespace()
    jobs = [going.wait(going.apply(f"job-{number}", image("sleep", "300")), "Running")["jobID"] for number in range(3)]
    kubectl("delete", "namespace", going.name, "--timeout=60s")
    for job_id in jobs:
        assert dray.http.get(f"/jobs/{job_id}").status_code == 404
        assert dray.containers(job_id) == []
    going.remove()


def test_a_finalizer_torn_off_leaves_no_job(team: Namespace, serve: Callable[..., Served], image: Images) -> None:
    dray = serve(*options(team), KUBECONFIG=str(team.kubeconfig))
    name = team.apply("torn", image("sleep", "300"))
    job_id = team.wait(name, "Running")["jobID"]
    team.kubectl("patch", "drayjob", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    team.delete(name)
    until(lambda: dray.http.get(f"/jobs/{job_id}").status_code == 404, 20, "the job is deleted")
    until(lambda: dray.containers(job_id) == [], 20, "its containers are gone")


def test_a_job_deleted_at_the_api_is_not_run_again(team: Namespace, serve: Callable[..., Served], image: Images) -> None:
    dray = serve(*options(team), KUBECONFIG=str(team.kubeconfig))
    name = team.apply("removed", image("sleep", "3"))
    job_id = team.wait(name, "Running")["jobID"]
    dray.http.delete(f"/jobs/{job_id}")
    assert team.wait(name, "Failed")["reason"] == "RecordGone"
    dray.process.signal(signal.SIGTERM)
    until(lambda: not dray.running, 20, "it has ended")
    dray.start()
    assert team.status(name)["reason"] == "RecordGone"
    assert dray.http.get(f"/jobs/{job_id}").status_code == 404
