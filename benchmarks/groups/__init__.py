"""How each group of rows is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench, Found
from benchmarks.groups import api, bulk, calls, follow, jobs, kubernetes, log, start

MEASURES: Mapping[str, Callable[[Bench], Found]] = {
    "instant": jobs.instant,
    "sleep": jobs.sleep,
    "throughput": jobs.throughput,
    "bulk": bulk.measure,
    "log": log.measure,
    "follow": follow.measure,
    "api": api.measure,
    "start": start.measure,
    "calls": calls.measure,
    "kubernetes": kubernetes.measure,
}
