"""What an operator tells of itself over HTTP, while it works: a real Redis, the fake engine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from dray.backends.fake import FakeBackend, Program, World
from dray.cli import probes
from dray.errors import Unavailable
from dray.loop import Loop
from dray.outputs import Outputs
from dray.record import FINAL, new_job
from dray.settings import Settings
from dray.spec import parse
from dray.store import Store
from dray.tasks import end
from kit.redis import RedisServer

TOKEN = "0123456789abcdef"
PROGRAMS: dict[str, Program] = {"hello": lambda _: (b"hello\n", 0), "double": lambda given: (given + given, 0), "fails": lambda _: (b"half", 3)}


@dataclass
class Operator:
    """One at work, and a client of its port."""

    store: Store
    world: World
    loop: Loop
    http: httpx.AsyncClient

    async def run(self, job_id: str, *sources: str) -> None:
        """A job, to its end."""
        await self.store.create(new_job(job_id, parse({"steps": [{"source": source} for source in sources]}), 1))
        while (job := await self.store.load(job_id)) is None or job.phase not in FINAL:
            self.world.advance(job_id)
            await asyncio.sleep(0.01)

    async def metrics(self) -> dict[str, float]:
        text = (await self.http.get("/metrics")).text
        return {name: float(value) for name, value in re.findall(r"^(dray_\S+) (\S+)$", text, re.MULTILINE)}

    async def until(self, path: str, status: int) -> httpx.Response:
        while True:
            answer = await self.http.get(path)
            if answer.status_code == status:
                return answer
            await asyncio.sleep(0.02)


@asynccontextmanager
async def operating(redis: RedisServer, root: Path, **settings: Any) -> AsyncIterator[Operator]:
    given = Settings(redis_url=redis.url, data_dir=root, **settings)
    store, world = Store(redis.url), World(PROGRAMS)
    loop = Loop("me", given, store, FakeBackend(world), Outputs(given.outputs_url))
    transport = httpx.ASGITransport(probes.create_app(given, (loop,)))
    running = asyncio.create_task(loop.run(asyncio.Event()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        try:
            yield Operator(store, world, loop, http)
        finally:
            await end(running)
            await store.close()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(bounded())


def test_what_it_does_is_counted(redis_server: RedisServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        redis_server.flush()
        async with operating(redis_server, tmp_path) as operator:
            before = await operator.metrics()
            await operator.run("A", "hello", "double")
            await operator.run("B", "hello", "fails")
            after = await operator.metrics()
        grown = {name: after[name] - before.get(name, 0) for name in after}
        assert grown['dray_jobs_finished_total{reason="",status="complete"}'] == 1
        assert grown['dray_jobs_finished_total{reason="exit_code",status="error"}'] == 1
        assert grown['dray_step_attempts_total{reason="",status="complete"}'] == 3
        assert grown['dray_step_attempts_total{reason="exit_code",status="error"}'] == 1
        assert grown["dray_job_wait_seconds_count"] == 2
        assert grown["dray_piped_bytes_total"] == len("hello\n" * 4)
        assert grown["dray_log_lines_total"] == 5
        assert grown["dray_reconcile_duration_seconds_count"] > 4
        assert grown['dray_reconcile_errors_total{kind="bug"}'] == 0
        assert after["dray_lease_held"] == 1

    run(scenario())


def test_it_is_ready_while_redis_and_engine_answer_and_its_lease_holds(redis_server: RedisServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        redis_server.flush()
        async with operating(redis_server, tmp_path) as operator:
            await operator.until("/readyz", 200)
            operator.world.down = True
            assert "fake: the engine is down" in (await operator.until("/readyz", 503)).json()["detail"]
            assert (await operator.http.get("/healthz")).status_code == 200

    run(scenario())


def test_before_its_lease_it_is_alive_but_not_ready(redis_server: RedisServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(redis_server.url)
        loop = Loop("me", Settings(), store, FakeBackend(World(PROGRAMS)), Outputs(tmp_path.as_uri()))
        app = probes.create_app(Settings(), (loop,))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            assert (await http.get("/healthz")).status_code == 200
            refused = await http.get("/readyz")
            assert (refused.status_code, refused.json()["detail"]) == (503, "the operator's lease does not hold")
        await store.close()

    run(scenario())


def test_one_that_stops_is_not_ready(redis_server: RedisServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with operating(redis_server, tmp_path) as operator:
            await operator.until("/readyz", 200)
        with pytest.raises(Unavailable, match="stopping"):
            await operator.loop.ready()

    run(scenario())


def test_a_loop_that_does_not_turn_is_not_alive(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with operating(redis_server, tmp_path) as operator:
            await operator.until("/readyz", 200)
            monkeypatch.setattr("dray.loop._STUCK", 0)
            assert (await operator.http.get("/healthz")).status_code == 503

    run(scenario())


def test_metrics_want_the_token_and_probes_do_not(redis_server: RedisServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with operating(redis_server, tmp_path, token=TOKEN) as operator:
            assert (await operator.http.get("/metrics")).status_code == 401
            assert (await operator.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 200
            assert (await operator.http.get("/healthz")).status_code == 200
            assert (await operator.http.get("/jobs", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 404

    run(scenario())
