"""What /metrics tells: requests, and what is stored. In `dray serve` the operator's are there too: the registry is the process's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from time import time

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from dray.clock import SECOND
from dray.errors import Unavailable
from dray.store import Counts, Store

MEDIA_TYPE = CONTENT_TYPE_LATEST
_REQUESTS = Counter("dray_http_requests", "Requests answered", ["method", "route", "status"])
_SECONDS = Histogram("dray_http_request_seconds", "From a request's head to its answer's end", ["method", "route"])


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """A request that was answered; status 0: its client went away before."""
    requests, durations = _children(method, route, status)
    requests.inc()
    durations.observe(seconds)


@cache
def _children(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return _REQUESTS.labels(method, route, str(status)), _SECONDS.labels(method, route)


async def page(store: Store) -> bytes:
    """All of it. While Redis does not answer, what is stored is not told."""
    try:
        counts, operators = await store.counts(), len(await store.operators())
    except Unavailable:
        return generate_latest(REGISTRY) + _told(_Stored(None, 0))
    return generate_latest(REGISTRY) + _told(_Stored(counts, operators))


def _told(stored: Collector) -> bytes:
    registry = CollectorRegistry()
    registry.register(stored)
    return generate_latest(registry)


class _Stored(Collector):
    def __init__(self, counts: Counts | None, operators: int) -> None:
        self._counts, self._operators = counts, operators

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("dray_redis_up", "Whether Redis answers", value=int(self._counts is not None))
        if self._counts is None:
            return
        stored = GaugeMetricFamily("dray_jobs_stored", "Jobs by status", labels=["status"])
        for status, count in self._counts.by_status.items():
            stored.add_metric([status], count)
        yield stored
        since = self._counts.waiting_since
        yield GaugeMetricFamily("dray_jobs_waiting", "Jobs that have not begun", value=self._counts.waiting)
        yield GaugeMetricFamily("dray_oldest_waiting_seconds", "Since the next job in turn came", value=max(0, time() - since / SECOND) if since else 0)
        yield GaugeMetricFamily("dray_operators_alive", "Operators with a lease", value=self._operators)
