"""Fixtures for all tests: real parts, each skipped (or failed, see REQUIRE) where it is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.errors import APIError, DockerException
from playwright.sync_api import Browser

from images import base, ensure
from kit.api import Api
from kit.browser import Tab, chromium
from kit.bucket import Bucket
from kit.clustered import Clustered
from kit.dockerd import Dockerd
from kit.dray import DRAY, answers, client, environment
from kit.images import Images
from kit.kubernetes import JobNamespace, Namespace, require_cluster, require_drayjobs
from kit.nodes import NodeImages
from kit.process import Process, free_port, wait_ready
from kit.redis import RedisServer
from kit.registry import Registry
from kit.require import missing, required
from kit.serving import Served

Start = Callable[..., Process]


def pytest_configure() -> None:
    required()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("DRAY_TEST_FULL") == "1":
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="long: make test-full"))


# --- redis


@pytest.fixture(scope="session")
def redis() -> None:
    """redis-server is installed."""
    if shutil.which("redis-server") is None:
        missing("redis", "redis-server is not installed (Debian: apt install redis-server)")


@pytest.fixture(scope="session")
def redis_server(redis: None) -> Iterator[RedisServer]:
    """One for all tests, which `flush` it first if they care; not to be killed."""
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture
def make_redis(redis: None) -> Iterator[Callable[..., RedisServer]]:
    """make_redis(*options): a RedisServer of the test's own, to kill and start again."""
    with ExitStack() as made:

        def make(*options: str) -> RedisServer:
            server = RedisServer(*options)
            made.callback(server.remove)
            return server

        yield make


# --- a bucket


@pytest.fixture(scope="session")
def shared_bucket() -> Iterator[Bucket]:
    """One for all tests; not to be killed."""
    bucket = Bucket()
    yield bucket
    bucket.remove()


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """One of the test's own."""
    made = Bucket()
    yield made
    made.remove()


# --- docker


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The real engine that DOCKER_HOST names, or the local one; with a static busybox at hand to make images of."""
    try:
        found = docker.from_env(timeout=60)
        found.ping()
        base()
    except (DockerException, FileNotFoundError) as error:
        missing("docker", str(error))
    yield found
    found.close()


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Images:
    """image("sort", "-u"), image.shell("echo hello"): the name of an image that runs it."""
    return Images(engine)


@pytest.fixture
def registry(engine: docker.DockerClient) -> Iterator[Callable[..., Registry]]:
    """registry(login=False, tls=False, tokens=False): a Registry of the test's own."""
    if shutil.which("docker-registry") is None:
        missing("docker", "docker-registry is not installed (Debian: apt install docker-registry)")
    with ExitStack() as made:

        def make(login: bool = False, tls: bool = False, tokens: bool = False) -> Registry:
            started = Registry(engine, login, tls, tokens)
            made.callback(started.remove)
            return started

        yield make


@pytest.fixture
def own_dockerd(engine: docker.DockerClient) -> Iterator[Callable[..., Dockerd]]:
    """own_dockerd(tls=False): an engine of the test's own, to kill and start again."""
    if os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("ip"):
        missing("docker", "starting a second dockerd takes root, dockerd and ip (Debian: iproute2) on the PATH")
    with ExitStack() as made:

        def make(tls: bool = False) -> Dockerd:
            started = Dockerd(tls)
            made.callback(started.remove)
            return started

        yield make


# --- kubernetes


@pytest.fixture(scope="session")
def cluster() -> None:
    """The cluster that KUBECONFIG names, with DrayJobs in it."""
    require_cluster()
    require_drayjobs()


@pytest.fixture
def namespace(cluster: None) -> Iterator[Namespace]:
    """A Namespace of the test's own. What operates in it must be asked for after it, so that it ends first."""
    made = Namespace()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def team(cluster: None) -> Iterator[Namespace]:
    """One for all tests of a module."""
    made = Namespace()
    yield made
    made.remove()


@pytest.fixture(scope="session")
def node_images(engine: docker.DockerClient) -> Iterator[NodeImages]:
    """Images for the nodes of that cluster, which are on this machine."""
    require_cluster()
    if shutil.which("docker-registry") is None:
        missing("kubernetes", "docker-registry is not installed (Debian: apt install docker-registry)")
    made = NodeImages(engine)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def job_namespace(node_images: NodeImages) -> Iterator[JobNamespace]:
    """A namespace in which jobs run, for all tests."""
    made = JobNamespace()
    yield made
    made.remove()


# --- dray


@pytest.fixture
def serve(redis: None, engine: docker.DockerClient) -> Iterator[Callable[..., Served]]:
    """serve(*args, NAME="value", …): a Served, ready; its log is shown when the test fails."""
    with ExitStack() as made:

        def make(*args: str, **env: str | None) -> Served:
            served = Served(engine, args, env)
            made.callback(served.close)
            return served

        yield make


@pytest.fixture
def dray(serve: Callable[..., Served]) -> Served:
    """A `dray serve` as it comes."""
    return serve()


@pytest.fixture
def serve_on_cluster(redis: None, engine: docker.DockerClient, node_images: NodeImages, job_namespace: JobNamespace) -> Iterator[Callable[..., Clustered]]:
    """serve_on_cluster(*args, NAME="value", …): the same, whose jobs run in `job_namespace`."""
    with ExitStack() as made:

        def make(*args: str, **env: str | None) -> Clustered:
            served = Clustered(engine, job_namespace, node_images.ours, args, env)
            made.callback(served.close)
            return served

        yield make


# --- the API alone


@pytest.fixture(scope="session")
def make_api(redis_server: RedisServer) -> Iterator[Callable[..., Api]]:
    """make_api(*args, NAME="value", …): an Api on `redis_server`, or on the one that `redis_url` names; it runs until all tests have."""
    with ExitStack() as made:

        def make(*args: str, redis_url: str | None = None, **env: str) -> Api:
            api = Api(redis_url or redis_server.url, env, args)
            made.callback(api.close)
            return api

        yield make


@pytest.fixture(scope="session")
def api(make_api: Callable[..., Api]) -> Api:
    """An Api as it comes."""
    return make_api()


# --- API and operators apart


@pytest.fixture
def shared(make_redis: Callable[..., RedisServer], engine: Any, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that joins the two: a Redis in Docker's link form, and a folder for outputs. Nothing of a job may be left in the end."""
    port = free_port()
    server = make_redis("--port", str(port))
    yield {"REDIS_PORT": f"tcp://127.0.0.1:{port}", "DRAY_DATA_DIR": str(tmp_path / "data"), "DRAY_OUTPUTS": (tmp_path / "outputs").as_uri()}
    with server.client() as redis:
        instance = redis.get("dray:instance")
    if isinstance(instance, bytes):
        for container in engine.containers.list(all=True, ignore_removed=True, filters={"label": f"dray.instance={instance.decode()}"}):
            try:
                container.remove(force=True, v=True)
            except APIError:
                continue
            pytest.fail(f"left behind: {container.name}")


@pytest.fixture
def start(shared: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """start("api", "-p", "1", NAME="value"): a `dray api`; all are stopped at the end, before `shared` looks for what they left."""
    with ExitStack() as made:

        def make(*command: str, **env: str) -> Process:
            process = Process([DRAY, *command], tmp_path / f"{command[0]}-{free_port()}.log", environment() | env)
            made.callback(process.stop)
            return process

        yield make


@pytest.fixture
def start_api(start: Start, shared: dict[str, str]) -> Iterator[Callable[[], httpx.Client]]:
    """start_api(): a client of a `dray api` that answers."""
    with ExitStack() as made:

        def make() -> httpx.Client:
            port = free_port()
            process = start("api", "--port", str(port), **shared)
            asked = made.enter_context(client(f"http://127.0.0.1:{port}"))
            wait_ready(process, lambda: answers(asked), 30, "dray api")
            return asked

        yield make


# --- the page in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with its file's tests: while it runs, no other event loop can in this thread."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page_server(redis: None, engine: docker.DockerClient) -> Iterator[Served]:
    """One for all tests of a file."""
    ensure(engine)
    served = Served(engine)
    yield served
    served.close()


@pytest.fixture
def make_tab(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """make_tab(url, **options): a Tab; at the end its browser must have had nothing to complain of."""
    made: list[Tab] = []

    def make(url: str, **options: Any) -> Tab:
        made.append(Tab(browser, url, **options))
        return made[-1]

    yield make
    for tab in made:
        tab.close()
    assert [complaint for tab in made for complaint in tab.complaints] == []


@pytest.fixture
def tab(make_tab: Callable[..., Tab], page_server: Served) -> Tab:
    """Of `page_server`."""
    return make_tab(page_server.url)
