"""Dray's image on a real engine, started as the original's README starts the original; and docker-compose.yml."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
import yaml

from kit import built
from kit.docs import type_in
from kit.dray import answers, client
from kit.process import free_port, until
from kit.registry import Registry

ROOT, GUIDE = Path(__file__).parents[2], "docs/install.md"
VERSION = "0.1.0"  # as it stands there
SOCKET = "/var/run/docker.sock"
TOKEN = "sixteen-characters"

pytestmark = [pytest.mark.ours, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient) -> str:
    if not Path(SOCKET).exists() or os.environ.get("DOCKER_HOST", f"unix://{SOCKET}") != f"unix://{SOCKET}":
        pytest.skip(f"the engine is not at {SOCKET}")
    return built.dray(engine)


@pytest.fixture(scope="module")
def redis_image(engine: docker.DockerClient) -> str:
    return built.redis(engine)


@pytest.fixture
def run(engine: docker.DockerClient) -> Iterator[Callable[..., Any]]:
    """run(*words): the container of `docker run -d *words`."""
    with ExitStack() as made:

        def make(*words: str) -> Any:
            name = _name()
            _docker("run", "-d", "--name", name, *words)
            container = engine.containers.get(name)
            made.callback(container.remove, force=True, v=True)
            made.callback(lambda: print(f"--- {name}", container.logs().decode(), sep="\n"))
            return container

        yield make


@pytest.fixture
def started(run: Callable[..., Any], image: str, redis_image: str) -> Iterator[Callable[..., tuple[Any, httpx.Client]]]:
    """started(*options): the container of the README's `docker run`, a Redis beside it, and a client of it."""
    clients = ExitStack()

    def make(*options: str, token: str | None = None) -> tuple[Any, httpx.Client]:
        port = free_port()
        redis = run(redis_image)
        container = run("--link", f"{redis.name}:redis", "-v", f"{SOCKET}:{SOCKET}", "-p", f"{port}:3000", *options, image)
        asked = clients.enter_context(client(f"http://127.0.0.1:{port}", token))
        until(lambda: answers(asked), 60, "it is ready")
        return container, asked

    with clients:
        yield make


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True, timeout=110).stdout


def _name() -> str:
    return f"dray-test-{secrets.token_hex(4)}"


def _job(image: str) -> dict[str, Any]:
    """Of two steps, whose output is HELLO."""
    return {"steps": [{"source": image, "command": ["echo", "hello"]}, {"source": image, "command": ["tr", "a-z", "A-Z"]}]}


def _output(asked: httpx.Client, job: dict[str, Any]) -> str:
    """What the job put out, once it is complete."""
    answer = asked.post("/jobs", json=job)
    assert answer.status_code == 201, answer.text
    path = f"/jobs/{answer.json()['id']}"
    until(lambda: asked.get(path).json()["status"] != "running", 60, "the job has ended")
    assert asked.get(path).json()["status"] == "complete", asked.get(path).text
    return asked.get(f"{path}/output").text


# --- docker run, as the original's README has it


def test_it_runs_beside_a_linked_redis(started: Callable[..., tuple[Any, httpx.Client]], image: str) -> None:
    container, asked = started("-e", "LOG_LEVEL=debug")
    assert _output(asked, _job(image)) == "HELLO\n"
    assert '"level":"debug"' in container.logs().decode()


def test_it_is_healthy_and_not_root(started: Callable[..., tuple[Any, httpx.Client]]) -> None:
    container, _ = started("--health-interval", "1s")
    status = dict(line.split(":", 1) for line in container.exec_run("cat /proc/1/status").output.decode().splitlines())
    assert set(status["Uid"].split()) == {"65532"}
    assert int(status["CapBnd"], 16) == 0
    assert container.exec_run("dray-health").exit_code == 0
    until(lambda: json.loads(_docker("inspect", container.name))[0]["State"]["Health"]["Status"] == "healthy", 60, "the engine finds it healthy")


def test_it_ends_in_good_order_when_told_to(started: Callable[..., tuple[Any, httpx.Client]]) -> None:
    container, _ = started()
    container.stop(timeout=30)
    assert container.wait()["StatusCode"] == 0


def test_a_linked_container_calls_it_dray(started: Callable[..., tuple[Any, httpx.Client]], run: Callable[..., Any], image: str) -> None:
    container, _ = started()
    asked = "import urllib.request; print(urllib.request.urlopen('http://dray:3000/jobs').read())"
    asking = run("--link", f"{container.name}:dray", "--entrypoint", "python3", image, "-c", asked)
    assert asking.wait()["StatusCode"] == 0
    assert asking.logs() == b"b'[]'\n"


def test_a_token_is_wanted_where_one_is_set(started: Callable[..., tuple[Any, httpx.Client]], image: str) -> None:
    _, asked = started("-e", f"DRAY_TOKEN={TOKEN}", token=TOKEN)
    assert httpx.get(f"{asked.base_url}/jobs", trust_env=False).status_code == 401
    assert _output(asked, _job(image)) == "HELLO\n"


def test_the_users_of_the_engine_need_not_be_root(started: Callable[..., tuple[Any, httpx.Client]], image: str) -> None:
    """As where a cluster allows no container to begin as root."""
    group = Path(SOCKET).stat().st_gid
    _, asked = started("--user", "65532:65532", "--group-add", str(group), "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/data:uid=65532", "--cap-drop", "ALL")
    assert _output(asked, _job(image)) == "HELLO\n"


def test_it_is_built_pushed_and_started_as_the_guide_says(engine: docker.DockerClient, registry: Callable[..., Registry], image: str, redis_image: str) -> None:
    local, redis, dray, port = registry(), _name(), _name(), free_port()
    team, build = f"{local.address}/team", f"docker build --build-arg BASE={built.debian(engine)}"
    names = {"--name redis redis ": f"--name {redis} {redis_image} ", "--name dray --link redis:": f"--name {dray} --link {redis}:"}
    try:
        type_in(GUIDE, "docker build", ROOT, {"docker build": build, "registry.example/team": team}, DOCKER_BUILDKIT="0")
        assert local.tags("team/dray") == [VERSION]
        type_in(GUIDE, "docker run", ROOT, names | {"3000:3000 dray": f"{port}:3000 {team}/dray:{VERSION}"})
        with client(f"http://127.0.0.1:{port}") as asked:
            until(lambda: answers(asked), 60, "it is ready")
            assert _output(asked, _job(image)) == "HELLO\n"
    finally:
        _docker("rm", "-f", "-v", dray, redis)
        local.forget(f"{team}/dray:{VERSION}")


# --- what is in it


def test_other_commands_are_what_they_are_elsewhere(image: str) -> None:
    assert "usage: dray operator" in _docker("run", "--rm", image, "operator", "--help")
    assert (
        "dray-runner step"
        in subprocess.run(["docker", "run", "--rm", "--entrypoint", "/dray-runner", image], capture_output=True, text=True, check=False).stderr
    )


def test_it_is_labelled(engine: docker.DockerClient, image: str) -> None:
    labels = engine.images.get(image).labels
    assert (labels["org.opencontainers.image.title"], labels["org.opencontainers.image.licenses"]) == ("dray", "Apache-2.0")


def test_it_can_keep_outputs_in_a_bucket_and_send_traces(image: str) -> None:
    _docker("run", "--rm", "--entrypoint", "python3", image, "-c", "import s3fs, opentelemetry.sdk, opentelemetry.exporter.otlp.proto.http")


def test_the_runner_alone_is_an_image_too(engine: docker.DockerClient, image: str) -> None:
    done = subprocess.run(["docker", "run", "--rm", built.runner(engine)], capture_output=True, text=True, check=False)
    assert "usage: dray-runner" in done.stderr


# --- docker-compose.yml


def test_compose_brings_up_redis_api_and_operator(image: str, redis_image: str) -> None:
    compose, port = _compose(), free_port()
    env = {"COMPOSE_PROJECT_NAME": f"draytest{secrets.token_hex(4)}", "REDIS_IMAGE": redis_image, "DRAY_PORT": str(port)}
    given = {"registry.example/team/dray:0.1.0": image, "DRAY_TOKEN=…": f"DRAY_TOKEN={TOKEN}", "docker compose": compose}
    try:
        type_in(GUIDE, "compose up", ROOT, given, **env)
        with client(f"http://127.0.0.1:{port}", TOKEN) as asked:
            until(lambda: answers(asked), 60, "the API is ready")
            assert _output(asked, _job(image)) == "HELLO\n"
            big = {"steps": [{"source": image, "command": ["sh", "-c", "yes | head -c 300000"]}]}
            assert len(_output(asked, big)) == 300_000  # by way of the folder that both share
    finally:
        for words in ("logs --no-color", "down -v"):
            subprocess.run([*compose.split(), *words.split()], cwd=ROOT, env=os.environ | env, check=True, timeout=110)


def test_compose_keeps_what_was_acknowledged() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    words = services["redis"]["command"]
    assert words[words.index("--appendonly") + 1] == "yes"
    assert words[words.index("--appendfsync") + 1] == "always"
    assert services["redis"]["volumes"] == ["redis:/data"]


def _compose() -> str:
    """The command; the test is skipped where there is none."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return "docker compose"
    if not shutil.which("docker-compose"):
        pytest.skip("there is no docker compose (Debian: apt install docker-compose)")
    return "docker-compose"
