"""What the API answers per second, alone with a Redis of its own: beside a route that returns a constant, and with many jobs stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial

from redis import Redis

from benchmarks import load, stored
from benchmarks.bench import Bench, Found, Series, quietly, turns
from benchmarks.groups.log import LIKE_EMBEDDED
from benchmarks.rows import CONSTANT, DRAY, EMPTY, FULL
from benchmarks.server import Server
from kit.api import Api
from kit.redis import RedisServer

SECONDS, QUICK_SECONDS = 1.5, 0.3  # of one turn
LOG_LINES = 10


@dataclass(frozen=True)
class Alone:
    """An API, its Redis, and the requests that are measured on it."""

    api: Api
    redis: Redis
    requests: Mapping[str, bytes]

    def rate(self, name: str, seconds: float) -> float:
        """Requests per second. The jobs posted by them are taken away again."""
        reached = load.rate(self.api.port, self.requests[name], seconds)
        stored.drop_waiting(self.redis)
        return reached


def measure(bench: Bench) -> Found:
    kept = template(bench)
    with ExitStack() as running:
        empty, full = (running.enter_context(_alone(kept, count)) for count in (1, bench.sized(stored.MANY, 1000)))
        series = _taken(bench, {EMPTY: empty, FULL: full})
    found = Found()
    for name in ("post", "job", "log"):
        found.rows[f"api-{name}"] = {DRAY: series[EMPTY, name], CONSTANT: series[EMPTY, "constant"]}
        found.rows[f"api-{name}-full"] = {FULL: series[FULL, name], EMPTY: series[EMPTY, name]}
    return found


def template(bench: Bench) -> stored.Template:
    """A job of three steps with ten lines of log, that did run."""
    images = [bench.image("seq", str(LOG_LINES)), bench.image("true"), bench.image("true")]
    with bench.served() as served, closing(Server(served.url)) as server:
        job_id = server.run(images)
        with Redis.from_url(f"unix://{served.data_dir}/redis/redis.sock") as client:
            return stored.template(client, job_id)


@contextmanager
def _alone(kept: stored.Template, count: int) -> Iterator[Alone]:
    with ExitStack() as running:
        redis = RedisServer(*LIKE_EMBEDDED)
        running.callback(redis.remove)
        client = running.enter_context(redis.client())
        job_id = stored.copies(client, kept, count)
        api = Api(redis.url, {"LOG_LEVEL": "info"})
        running.callback(quietly, api.close)
        posted = json.dumps({"steps": [{"source": "centurylink/randword"}, {"source": "centurylink/upper"}, {"source": "centurylink/reverse"}]}).encode()
        requests = {
            "constant": load.request("GET", "/healthz"),
            "post": load.request("POST", "/jobs", posted),
            "job": load.request("GET", f"/jobs/{job_id}"),
            "log": load.request("GET", f"/jobs/{job_id}/log?index=0&limit={LOG_LINES}"),
        }
        assert len(api.http.get(f"/jobs/{job_id}/log").raise_for_status().json()["lines"]) == LOG_LINES
        yield Alone(api, client, requests)


def _taken(bench: Bench, sides: Mapping[str, Alone]) -> dict[tuple[str, str], list[float]]:
    """Requests per second by side and request. Each request is measured on one side and at once on the other."""
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    measures = {f"{side} {name}": partial(alone.rate, name, seconds) for name in ("constant", "post", "job", "log") for side, alone in sides.items()}
    series: Series = turns(bench.rounds, measures)
    return {(side, name): series[f"{side} {name}"] for side, alone in sides.items() for name in alone.requests}
