"""What a job costs on a cluster, beside bare Jobs, and what many at once take of our memory and of the API server."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Any

from benchmarks import processes
from benchmarks.bench import Bench, Found, quietly, seconds, turns
from benchmarks.cluster import BareJobs
from benchmarks.rows import DRAY, ENDED, JOB, JOB_EACH, MANY, ROWS
from benchmarks.server import Server
from kit.apiserver import ApiCalls, ApiServer
from kit.clustered import Clustered
from kit.kubernetes import JobNamespace
from kit.nodes import NodeImages
from kit.process import until

STEPS = 3
MIB = 2**20
WITHIN = 120  # seconds
HELD = 5  # seconds that a pod lives whose memory is looked at


def measure(bench: Bench) -> Found:
    found = Found()
    if why := _missing():
        found.skipped = {row.name: why for row in ROWS if row.group == "kubernetes"}
        return found
    with ExitStack() as running:
        nodes = NodeImages(bench.engine)
        running.callback(nodes.remove)
        namespace = JobNamespace()
        running.callback(namespace.remove)
        server = running.enter_context(closing(ApiServer(bench.dir)))
        cluster = Cluster(bench, nodes, namespace, server)
        cluster.one(found)
        cluster.counted(found)
        cluster.many(found)
    return found


def _missing() -> str:
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG names no cluster"
    absent = [program for program in ("kubectl", "docker-registry") if shutil.which(program) is None]
    return f"{' and '.join(absent)} missing" if absent else ""


class Cluster:
    """A namespace with Dray and bare Jobs in it by turns."""

    def __init__(self, bench: Bench, nodes: NodeImages, namespace: JobNamespace, server: ApiServer) -> None:
        self._bench, self._nodes, self._namespace, self._server = bench, nodes, namespace, server
        self._bare = BareJobs(server, namespace.name)
        self._images = [nodes.of(bench.image("cat"))] * STEPS

    @contextmanager
    def _served(self, api_server: str | None = None, jobs: int = 4) -> Iterator[tuple[Clustered, Server]]:
        """With the permissions that the docs name, and a client of it."""
        env = {"DRAY_JOBS": str(jobs), "LOG_LEVEL": "info"}
        if api_server:
            env["KUBECONFIG"] = str(self._namespace.kubeconfig_at(api_server))
        served = Clustered(self._bench.engine, self._namespace, self._nodes.ours, [], env)
        try:
            with closing(Server(served.url)) as server:
                yield served, server
        finally:
            quietly(served.close)

    # --- one job

    def one(self, found: Found) -> None:
        """Each has had a turn that is not counted, which brings the images to the node."""
        jobs, gaps = list[str](), list[float]()
        with self._served() as (_, server):

            def ours() -> float:
                took = self._turn(lambda: jobs.append(server.run(self._images, WITHIN)))
                gaps.append(_gap(server.get(f"/jobs/{jobs[-1]}")))
                return took

            bare = {JOB: self._bare.run, ENDED: self._bare.run_containers, JOB_EACH: self._bare.run_each}
            measures: dict[str, Callable[[], float]] = {DRAY: ours}
            measures |= {name: partial(self._turn, partial(run, self._images)) for name, run in bare.items()}
            for warm_up in measures.values():
                warm_up()
            found.rows["kubernetes-3"] = turns(self._bench.rounds, measures)
            found.rows["kubernetes-gap"] = {DRAY: gaps[1:]}
            self._pod_memory(found, server)

    def _turn(self, work: Callable[[], object]) -> float:
        """Milliseconds."""
        took = seconds(work)
        self._bare.clear()
        return took * 1000

    def _pod_memory(self, found: Found, server: Server) -> None:
        """Of our processes in the pod of a job, while its first step runs. They can be seen where the node is this machine."""
        held = [self._nodes.of(self._bench.image("sleep", str(HELD)))] * STEPS
        job_id = server.post(held)
        until(lambda: server.get(f"/jobs/{job_id}")["steps"][0]["startedAt"] is not None, WITHIN, "the first step runs")
        (pod,) = self._namespace.pods(job_id)
        seen = processes.runners([pod["metadata"]["uid"], pod["metadata"]["uid"].replace("-", "_")])
        if seen:
            found.rows["kubernetes-pod-memory"] = {DRAY: [processes.memory(seen) / MIB]}
        else:
            found.skipped["kubernetes-pod-memory"] = "the cluster's nodes are other machines"
        until(lambda: server.ended(job_id), WITHIN, "the job ends")
        self._bare.cleared()

    # --- requests to the API server

    def counted(self, found: Found) -> None:
        with ApiCalls(self._server) as calls, self._served(calls.url) as (_, server):
            server.run(self._images, WITHIN)
            self._bare.cleared()
            took = [self._calls_of(calls, partial(server.run, self._images, WITHIN)) for _ in range(self._bench.rounds)]
        found.rows["kubernetes-calls"] = {DRAY: [counted.total() for counted in took]}
        found.notes["kubernetes-calls"] = dict(took[-1].most_common())

    def _calls_of(self, calls: ApiCalls, run: Callable[[], object]) -> Counter[str]:
        """Until all that the job had is gone."""
        before = calls.counted.copy()
        run()
        self._bare.cleared()
        return calls.counted - before

    # --- many at once

    def many(self, found: Found) -> None:
        """One turn each."""
        count = self._bench.sized(MANY, 5)
        with ApiCalls(self._server) as calls, self._served(calls.url, count) as (served, server):
            before = calls.counted.copy()
            with processes.Peak(served.process.pid, list) as peak:
                took = seconds(partial(server.run_many, self._images, count, count))
            self._bare.cleared()
            counted = calls.counted - before
        beside = self._turn(partial(self._bare.run_many, self._images, count))
        found.rows["kubernetes-many"] = {DRAY: [count / took], JOB: [count / beside * 1000]}
        found.rows["kubernetes-many-memory"] = {DRAY: [peak.bytes / MIB]}
        found.rows["kubernetes-many-calls"] = {DRAY: [counted.total() / count]}
        found.notes["kubernetes-many-calls"] = dict(counted.most_common())


def _gap(record: Mapping[str, Any]) -> float:
    """Milliseconds, the largest between one step's end and the next one's start."""
    steps: Sequence[Mapping[str, Any]] = record["steps"]
    gaps = [datetime.fromisoformat(after["startedAt"]) - datetime.fromisoformat(before["finishedAt"]) for before, after in pairwise(steps)]
    return max(gap.total_seconds() for gap in gaps) * 1000
