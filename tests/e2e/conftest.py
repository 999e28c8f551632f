"""API and operators as processes of their own, which meet in a shared Redis and an output store."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from docker.errors import APIError

from kit.process import Process, free_port, wait_ready
from kit.redis import RedisServer

Start = Callable[..., Process]


@pytest.fixture
def shared(make_redis: Callable[..., RedisServer], engine: Any, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that joins the two: a Redis in Docker's link form, and a folder for outputs. Nothing of a job may be left in the end."""
    port = free_port()
    server = make_redis("--port", str(port))
    yield {"REDIS_PORT": f"tcp://127.0.0.1:{port}", "DRAY_DATA_DIR": str(tmp_path / "data"), "DRAY_OUTPUTS": (tmp_path / "outputs").as_uri()}
    with server.client() as client:
        instance = client.get("dray:instance")
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
            own = {name: value for name, value in os.environ.items() if not name.startswith(("DRAY_", "REDIS_"))}
            process = Process([str(Path(sys.executable).parent / "dray"), *command], tmp_path / f"{command[0]}-{free_port()}.log", own | env)
            made.callback(process.stop)
            return process

        yield make


@pytest.fixture
def api(start: Start, shared: dict[str, str]) -> Iterator[Callable[[], httpx.Client]]:
    """api(): a client of a `dray api` that answers."""
    with ExitStack() as made:

        def make() -> httpx.Client:
            port = free_port()
            process = start("api", "--port", str(port), **shared)
            client = made.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False))
            wait_ready(process, lambda: _answers(client), 30, "dray api")
            return client

        yield make


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
