"""How long `dray serve` takes from its start to ready, with many jobs stored."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from redis import Redis

from benchmarks import stored
from benchmarks.bench import Bench, Found, seconds, turns
from benchmarks.groups.api import template
from benchmarks.rows import DRAY, IMPORTS
from kit.process import until
from kit.serving import Served

REWRITTEN_WITHIN = 60  # seconds


def measure(bench: Bench) -> Found:
    kept = template(bench)
    with bench.served() as served:
        _fill(served, kept, bench.sized(stored.MANY, 1000))

        def ours() -> float:
            """Milliseconds. Asked every 20 ms whether it is ready."""
            assert served.stop() == 0
            return seconds(served.start) * 1000

        imports = partial(subprocess.run, [sys.executable, "-c", "import fastapi, redis, docker"], check=True)
        found = Found()
        found.rows["start"] = turns(bench.rounds, {DRAY: ours, IMPORTS: lambda: seconds(imports) * 1000})
    return found


def _fill(served: Served, kept: stored.Template, count: int) -> None:
    """Stored as Redis keeps what has been there for a while: it rewrites its file by itself whenever that has doubled."""
    with Redis.from_url(f"unix://{served.data_dir}/redis/redis.sock") as client:
        stored.copies(client, kept, count)
        client.bgrewriteaof()
        time.sleep(0.1)
        until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, REWRITTEN_WITHIN, "the append-only file is rewritten")
