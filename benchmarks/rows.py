"""The rows and what is asked of each, as data. A group of rows is measured together, by the module of its name in `groups`."""

from __future__ import annotations

from dataclasses import dataclass

DRAY = "dray"
FILES, PIPE, ENGINE = "docker run, files between", "docker run, live pipe", "engine API"
NO_CONTAINER, XADD, CONSTANT, EMPTY, IMPORTS = "no container", "pipelined XADD", "constant route", "empty Redis", "python's imports"
JOB, ENDED, JOB_EACH = "bare Job", "bare Job, its containers ended", "a bare Job for each step"
FULL, FAR, NEAR = "100,000 jobs stored", "at line 999,000", "at line 0"
MANY = 200  # jobs at once on a cluster


@dataclass(frozen=True)
class Bound:
    """What the median of the ratios to the series `beside` must be and should be; with `beside` None, the row's own median."""

    beside: str | None
    must: float | None
    aim: float | None


@dataclass(frozen=True)
class Row:
    """`subject` is the series that is judged. With `less`, less is better and a bound is the most it may be; else the least."""

    name: str
    group: str
    title: str
    unit: str
    less: bool
    bounds: tuple[Bound, ...] = ()
    subject: str = DRAY


def _rows() -> tuple[Row, ...]:
    return (
        *(
            Row(f"instant-{n}", "instant", f"{n} instant steps, POST → seen complete", "ms", True, (Bound(FILES, 0.40, 0.25), Bound(PIPE, 0.50, 0.25)))
            for n in (3, 10)
        ),
        *(Row(f"sleep-{n}", "sleep", f"{n} steps of 0.5 s: overhead per step", "ms", True, (Bound(FILES, 0.25, 0.15),)) for n in (3, 10)),
        *(Row(f"jobs-{n}", "throughput", f"jobs of 3 instant steps, {n} at a time", "jobs/s", False, (Bound(FILES, 2, 3),)) for n in (1, 4, 8, 16)),
        *(Row(f"cpu-{n}", "throughput", f"our CPU time per step, {n} jobs at a time", "ms", True, (Bound(None, 20, 10),)) for n in (1, 4, 8, 16)),
        *(
            Row(f"bulk-{what}", "bulk", f"1 GiB of {words} through two steps", "MB/s", False, (Bound(FILES, 3, None), Bound(NO_CONTAINER, None, 0.9)))
            for what, words in (("random", "random bytes"), ("text", "text lines"))
        ),
        *(
            Row(f"memory-{what}", "bulk", f"our peak memory during it, {words}", "MiB", True, (Bound(None, 150, 80),))
            for what, words in (("random", "random bytes"), ("text", "text lines"))
        ),
        Row("log-store", "log", "a million log lines of one step", "lines/s", False, (Bound(XADD, 0.5, 0.8),)),
        Row("log-read", "log", "GET of 10 log lines at line 999,000 of a million", "ms", True, (Bound(NEAR, 1.5, 1.0),), FAR),
        Row("follow-poll", "follow", "a line written → seen, polling the log", "ms", True, (Bound(None, 50, None),)),
        Row("follow-events", "follow", "a line written → seen, following the log's events", "ms", True, (Bound(None, 50, None),)),
        *(Row(f"api-{name}", "api", f"{title}, the API alone", "requests/s", False, (Bound(CONSTANT, must, aim),)) for name, title, must, aim in _ROUTES),
        *(
            Row(f"api-{name}-full", "api", f"{title}, 100,000 jobs stored", "requests/s", False, (Bound(EMPTY, 0.9, 1.0),), FULL)
            for name, title, _, _ in _ROUTES
        ),
        Row("start", "start", "`dray serve` to ready, 100,000 jobs stored", "ms", True, (Bound(IMPORTS, 3, 1.5),)),
        *(Row(f"engine-calls-{n}", "calls", f"engine calls per step, a job of {n} steps", "calls", True) for n in (3, 10)),
        *(Row(f"redis-trips-{n}", "calls", f"Redis round trips per step, a job of {n} steps", "trips", True) for n in (3, 10)),
        Row("kubernetes-3", "kubernetes", "3 instant steps on a cluster, POST → seen complete", "ms", True, (Bound(JOB, 1.3, None),)),
        Row("kubernetes-gap", "kubernetes", "one step's end → the next one's start, on a cluster", "ms", True, (Bound(None, 100, None),)),
        Row("kubernetes-calls", "kubernetes", "requests to the API server, a job of 3 steps", "requests", True),
        Row("kubernetes-pod-memory", "kubernetes", "our memory in the pod of a job of 3 steps", "MiB", True),
        Row("kubernetes-many", "kubernetes", f"{MANY} jobs of 3 instant steps at once on a cluster", "jobs/s", False),
        Row("kubernetes-many-memory", "kubernetes", "our operator's peak memory during it", "MiB", True),
        Row("kubernetes-many-calls", "kubernetes", "requests to the API server during it, each job's", "requests", True),
    )


_ROUTES = (("post", "POST /jobs", 0.4, 0.6), ("job", "GET of a job", 0.6, 0.8), ("log", "GET of 10 log lines", 0.5, 0.7))
ROWS = _rows()
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))


def groups_of(names: list[str]) -> list[str]:
    """The groups that measure these rows or groups; all for none. Raises KeyError for a name that is neither."""
    known = {group: group for group in GROUPS} | {row.name: row.group for row in ROWS}
    wanted = {known[name] for name in names}
    return [group for group in GROUPS if not names or group in wanted]
