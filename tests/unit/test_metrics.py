"""What is counted, and that the documents and the dashboard name what there is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from dray import metrics
from dray.errors import Stale, Unavailable
from dray.reason import Reason
from dray.record import Job, Past, Phase, StepState, new_job
from dray.spec import parse
from dray.state import inputless, moved
from dray.store import Store
from dray_api import metrics as api_metrics
from kit.redis import RedisServer

ROOT = Path(__file__).parents[2]
S = 10**6
COMPLETE = StepState(Phase.COMPLETE, started_at=10 * S, finished_at=12 * S, exit_code=0, bytes_in=0, bytes_out=5)
FAILED = StepState(Phase.ERROR, started_at=10 * S, finished_at=13 * S, exit_code=3, bytes_in=5, bytes_out=7)


class Counted:
    """What has been counted since: counters and the histograms' counts and sums, where they changed."""

    def __init__(self) -> None:
        self._before = dict(_samples())

    def __call__(self) -> dict[str, float]:
        return {name: value - self._before.get(name, 0) for name, value in _samples() if value != self._before.get(name, 0)}


def _samples() -> Iterator[tuple[str, float]]:
    for family in REGISTRY.collect():
        for sample in family.samples:
            if family.name.startswith("dray_") and family.type in ("counter", "histogram") and not sample.name.endswith("_bucket"):
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                yield sample.name + (f"{{{labels}}}" if labels else ""), sample.value


@pytest.fixture
def counted() -> Counted:
    return Counted()


def job_of(*states: StepState, spec: dict[str, Any] | None = None, **changes: Any) -> Job:
    found = new_job("J", parse(spec or {"steps": [{"source": "a"}] * len(states)}), 2 * S)
    return replace(found, phase=Phase.RUNNING, started_at=9 * S, steps=states, **changes)


# --- jobs and steps


def test_a_jobs_way_is_counted_once(counted: Counted) -> None:
    begun = job_of(StepState(), StepState())
    waits = replace(begun, phase=Phase.WAITING, started_at=None)
    runs = begun.with_step(0, StepState(Phase.RUNNING, started_at=10 * S))
    halfway = begun.with_step(0, COMPLETE)
    over = replace(halfway.with_step(1, COMPLETE), phase=Phase.COMPLETE, finished_at=20 * S, output=5)
    for before, after in ((waits, begun), (begun, runs), (runs, halfway), (halfway, over), (over, over)):
        metrics.observe(before, after)
    assert counted() == {
        "dray_job_wait_seconds_count": 1,
        "dray_job_wait_seconds_sum": 7,
        "dray_step_attempts_total{reason=,status=complete}": 2,
        "dray_step_duration_seconds_count{status=complete}": 2,
        "dray_step_duration_seconds_sum{status=complete}": 4,
        "dray_piped_bytes_total": 10,
        "dray_jobs_finished_total{reason=,status=complete}": 1,
        "dray_job_duration_seconds_count{status=complete}": 1,
        "dray_job_duration_seconds_sum{status=complete}": 11,
    }


def test_a_failed_attempt_is_counted_with_its_reason_and_so_is_the_job_that_it_fails(counted: Counted) -> None:
    again = StepState(attempt=2, past=(Past(1, Reason.OUT_OF_MEMORY, 137, 3 * S, 4 * S),))
    metrics.observe(job_of(StepState(Phase.RUNNING)), job_of(again))
    failed = replace(FAILED, attempt=2, past=again.past)
    metrics.observe(job_of(again), _failed(failed))
    assert counted() == {
        "dray_step_attempts_total{reason=out_of_memory,status=error}": 1,
        "dray_step_attempts_total{reason=exit_code,status=error}": 1,
        "dray_step_duration_seconds_count{status=error}": 2,
        "dray_step_duration_seconds_sum{status=error}": 4,
        "dray_jobs_finished_total{reason=exit_code,status=error}": 1,
        "dray_job_duration_seconds_count{status=error}": 1,
        "dray_job_duration_seconds_sum{status=error}": 5,
    }


def _failed(state: StepState) -> Job:
    return replace(job_of(state), phase=Phase.ERROR, finished_at=14 * S, reason=Reason.EXIT_CODE, failed=0)


def test_a_step_that_never_began_has_no_duration(counted: Counted) -> None:
    absent = replace(_failed(StepState(Phase.ERROR, finished_at=14 * S)), reason=Reason.IMAGE_NOT_FOUND)
    metrics.observe(job_of(StepState()), absent)
    assert counted()["dray_step_attempts_total{reason=image_not_found,status=error}"] == 1
    assert "dray_step_duration_seconds_count{status=error}" not in counted()


def test_a_second_failure_of_a_job_is_counted_though_its_reason_is_not_kept(counted: Counted) -> None:
    spec = {"steps": [{"source": "a"}, {"source": "b", "always": True}]}
    first = replace(job_of(FAILED, StepState(), spec=spec), reason=Reason.EXIT_CODE, failed=0)
    metrics.observe(first, first.with_step(1, StepState(Phase.ERROR, finished_at=14 * S)))
    assert counted() == {"dray_step_attempts_total{reason=other,status=error}": 1}


def test_of_a_job_whose_engine_is_gone_only_what_had_begun_is_counted_and_nothing_twice(counted: Counted) -> None:
    there = job_of(COMPLETE, StepState(Phase.RUNNING, started_at=12 * S), StepState())
    here = moved(there, 20 * S)
    metrics.observe(there, here)
    metrics.observe(here, inputless(here, 21 * S))
    assert counted() == {
        "dray_step_attempts_total{reason=lost,status=error}": 1,
        "dray_step_duration_seconds_count{status=error}": 1,
        "dray_step_duration_seconds_sum{status=error}": 8,
    }


def test_what_was_before_it_was_first_read_is_not_counted(counted: Counted) -> None:
    metrics.observe(None, _failed(FAILED))
    assert counted() == {}


def test_clocks_that_differ_make_no_negative_time(counted: Counted) -> None:
    waits = replace(job_of(StepState()), phase=Phase.WAITING, started_at=None)
    metrics.observe(waits, replace(waits, phase=Phase.RUNNING, started_at=1))
    assert counted() == {"dray_job_wait_seconds_count": 1}


def test_a_job_cancelled_before_it_began_is_counted_by_whoever_ended_it(counted: Counted, redis_server: RedisServer) -> None:
    async def cancel() -> None:
        store = Store(redis_server.url)
        redis_server.flush()
        await store.create(new_job("J", parse({"steps": [{"source": "a"}]}), 1))
        await store.cancel("J")
        await store.close()

    asyncio.run(cancel())
    assert counted() == {"dray_jobs_finished_total{reason=cancelled,status=error}": 1}


# --- the operator's own doing


@pytest.mark.parametrize(("error", "kind"), [(Stale("J"), "stale"), (Unavailable("Redis"), "unavailable"), (KeyError("x"), "bug")])
def test_a_pass_and_what_it_meets_is_counted(counted: Counted, error: Exception, kind: str) -> None:
    @metrics.a_pass
    async def step(well: bool) -> bool:
        if not well:
            raise error
        return True

    assert asyncio.run(step(True))
    with pytest.raises(type(error)):
        asyncio.run(step(False))
    found = counted()
    assert found.pop("dray_reconcile_duration_seconds_sum") > 0
    assert found == {"dray_reconcile_duration_seconds_count": 2, f"dray_reconcile_errors_total{{kind={kind}}}": 1}


def test_a_pull_is_counted_as_it_ends(counted: Counted) -> None:
    @metrics.a_pull()
    def pull(well: bool) -> None:
        if not well:
            raise Unavailable("the registry")

    pull(True)
    with pytest.raises(Unavailable):
        pull(False)
    found = counted()
    assert found["dray_image_pull_duration_seconds_count{status=complete}"] == 1
    assert found["dray_image_pull_duration_seconds_count{status=error}"] == 1


def test_every_reason_is_there_from_the_start() -> None:
    for reason in Reason:
        assert REGISTRY.get_sample_value("dray_jobs_finished_total", {"status": "error", "reason": reason}) is not None


# --- what names them


def _families() -> Iterator[Any]:
    for collector in vars(metrics).values():
        if isinstance(collector, MetricWrapperBase):
            yield from collector.collect()


def _name(family: Any) -> str:
    return f"{family.name}_total" if family.type == "counter" else str(family.name)


def test_the_table_of_metrics_is_the_codes() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    table = re.search(r"<!-- printed from dray.metrics.*?-->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert table is not None
    rows = "".join(f"| `{_name(family)}` | {family.type} | {_labels(family)} | {family.documentation} |\n" for family in _families())
    assert table[1] == "| metric | type | labels | what |\n|---|---|---|---|\n" + rows


def _labels(family: Any) -> str:
    return ", ".join(f"`{label}`" for label in family.samples[0].labels if label != "le")


def test_the_dashboard_names_only_metrics_that_there_are(redis_server: RedisServer) -> None:
    dashboard = json.loads((ROOT / "examples" / "grafana" / "dray.json").read_text())
    expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ()))
    known = {_name(family) for family in _families()} | _of_the_api(redis_server)
    known |= {f"{family.name}_{part}" for family in _families() if family.type == "histogram" for part in ("bucket", "count", "sum")}
    assert set(re.findall(r"\bdray_\w+", expressions)) - known == set()


def test_what_the_api_adds_is_named_too(redis_server: RedisServer) -> None:
    text = "".join((ROOT / "docs" / page).read_text() for page in ("operations.md", "kubernetes.md"))
    assert {name for name in _of_the_api(redis_server) if f"`{name}`" not in text} == set()


def _of_the_api(redis_server: RedisServer) -> set[str]:
    """All that its page shows and is not the operator's."""

    async def page() -> bytes:
        store = Store(redis_server.url)
        try:
            return await api_metrics.page(store)
        finally:
            await store.close()

    named = re.findall(r"^# TYPE (dray_\w+)", asyncio.run(page()).decode(), re.MULTILINE)
    return set(named) - {_name(family) for family in _families()}
