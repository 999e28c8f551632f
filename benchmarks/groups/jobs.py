"""What a job costs: instant steps, steps that sleep, many jobs at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks import processes, shell
from benchmarks.bench import Bench, Found, Series, seconds, settled, turns
from benchmarks.rows import DRAY, ENGINE, FILES, PIPE
from benchmarks.server import Server
from kit.serving import Served

SLEEP = 0.5  # seconds
JOBS = 20  # in one turn: 100 in five


def instant(bench: Bench) -> Found:
    found = Found()
    with bench.served() as served, _servers(bench, served) as servers:
        for steps in (3, 10):
            images = [bench.image("cat")] * steps
            peers = {FILES: partial(shell.files, images, bench.dir), PIPE: partial(shell.pipe, images), ENGINE: partial(shell.bare, bench.engine, images)}
            found.rows[f"instant-{steps}"] = _milliseconds(_compared(bench, served, servers, images, peers))
    return found


def sleep(bench: Bench) -> Found:
    """Of each measured time, the sleep is taken off and the rest divided by the steps."""
    found = Found()
    with bench.served() as served, _servers(bench, served) as servers:
        for steps in (3, 10):
            images = [bench.image("sleep", str(SLEEP))] * steps
            whole = _compared(bench, served, servers, images, {FILES: partial(shell.files, images, bench.dir)})
            found.rows[f"sleep-{steps}"] = _milliseconds({name: [value / steps - SLEEP for value in values] for name, values in whole.items()})
    return found


def throughput(bench: Bench) -> Found:
    found = Found()
    for at_a_time in (1, 4, 8, 16):
        with bench.served(DRAY_JOBS=str(at_a_time)) as served, _servers(bench, served) as servers:
            rates, cpu = _at_a_time(bench, served, servers, at_a_time)
        found.rows[f"jobs-{at_a_time}"], found.rows[f"cpu-{at_a_time}"] = rates, {DRAY: cpu}
    return found


def _at_a_time(bench: Bench, served: Served, servers: Mapping[str, Server], at_a_time: int) -> tuple[Series, list[float]]:
    """Jobs per second by who ran them, and milliseconds of our CPU time per step. Our own server is given all jobs at once: how many run is its setting."""
    images, jobs = [bench.image("cat")] * 3, bench.sized(JOBS, 4)
    cpu: list[float] = []

    def ours() -> float:
        before = processes.cpu(served.process.pid)
        rate = jobs / seconds(partial(servers[DRAY].run_many, images, jobs, jobs))
        settled(served)
        cpu.append((processes.cpu(served.process.pid) - before) / (jobs * len(images)) * 1000)
        return rate

    def theirs(work: Callable[[], object]) -> float:
        return jobs / seconds(work)

    measures: dict[str, Callable[[], float]] = {DRAY: ours, FILES: partial(theirs, partial(shell.many, images, bench.dir, jobs, at_a_time))}
    for name in bench.peers:
        measures[name] = partial(theirs, partial(servers[name].run_many, images, jobs, at_a_time))
    for server in servers.values():
        server.run(images)
    return turns(bench.rounds, measures), cpu


def _compared(bench: Bench, served: Served, servers: Mapping[str, Server], images: Sequence[str], peers: Mapping[str, Callable[[], object]]) -> Series:
    """Seconds of one job after another; each has had one that is not counted."""

    def ours() -> float:
        took = seconds(partial(servers[DRAY].run, images))
        settled(served)
        return took

    measures: dict[str, Callable[[], float]] = {DRAY: ours}
    measures |= {name: partial(seconds, work) for name, work in peers.items()}
    measures |= {name: partial(seconds, partial(servers[name].run, images)) for name in bench.peers}
    for warm_up in measures.values():
        warm_up()
    return turns(bench.rounds, measures)


@contextmanager
def _servers(bench: Bench, served: Served) -> Iterator[dict[str, Server]]:
    servers = {DRAY: Server(served.url)} | {name: Server(url) for name, url in bench.peers.items()}
    try:
        yield servers
    finally:
        for server in servers.values():
            server.close()


def _milliseconds(series: Series) -> Series:
    return {name: [value * 1000 for value in values] for name, values in series.items()}
