"""How often the engine and Redis are asked for a step: counts, which no machine's speed changes."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial

from benchmarks.bench import Bench, Found, settled
from benchmarks.counting import EngineCalls, RedisTrips
from benchmarks.rows import DRAY
from benchmarks.server import Server
from kit.serving import Served

LOOK = 0.25  # seconds between two looks at the job
STEPS = (3, 10)


def measure(bench: Bench) -> Found:
    found = Found()
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not host.startswith("unix://"):
        found.skipped = {f"{what}-{steps}": "the engine is not on a Unix socket" for what in ("engine-calls", "redis-trips") for steps in STEPS}
        return found
    with ExitStack() as running:
        calls = running.enter_context(EngineCalls(bench.dir / "engine.sock", host.removeprefix("unix://")))
        served = running.enter_context(bench.served(DOCKER_HOST=calls.url))
        server = running.enter_context(closing(Server(served.url)))
        redis_url = f"unix://{served.data_dir}/redis/redis.sock"
        server.run([bench.image("cat")])
        for steps in STEPS:
            images = [bench.image("cat")] * steps
            engine, trips = _counted(bench.rounds, calls, redis_url, partial(_run, served, server, images))
            for row, counted in ((f"engine-calls-{steps}", engine), (f"redis-trips-{steps}", trips)):
                found.rows[row] = {DRAY: [each.total() / steps for each in counted]}
                found.notes[row] = dict(counted[-1].most_common())
    return found


def _counted(rounds: int, calls: EngineCalls, redis_url: str, run: Callable[[], int]) -> tuple[list[Counter[str]], list[Counter[str]]]:
    """What each run's job took until everything of it was removed, our own looks at it taken off."""
    engine, trips = [], []
    for _ in range(rounds):
        before = calls.counted.copy()
        with RedisTrips(redis_url) as seen:
            looks = run()
        engine.append(calls.counted - before)
        trips.append(seen.counted)
        trips[-1]["our looks"] = -looks
    return engine, trips


def _run(served: Served, server: Server, images: Sequence[str]) -> int:
    """How often the record was looked at: a round trip each."""
    job_id, looks = server.post(images), 1
    time.sleep(LOOK)
    while not server.ended(job_id):
        looks += 1
        time.sleep(LOOK)
    settled(served)
    return looks
