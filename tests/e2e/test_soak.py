"""Days of work made short: many jobs of all kinds, with followers that come and go, after which a Dray is as it was."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from kit.images import Images
from kit.process import until
from kit.serving import Served

JOBS, WARM = 2000, 300  # in all; until everything has been used once
AT_ONCE, FOLLOWERS = 8, 12
LARGE = 200_000  # bytes, which go into the output store
MIB = 2**20


@dataclass(frozen=True)
class Measure:
    """Of the process, its Redis, and what it has on the engine."""

    memory: int
    files: int
    threads: int
    keys: int
    containers: int
    volumes: int
    outputs: int

    @classmethod
    def of(cls, dray: Served) -> Measure:
        process = Path(f"/proc/{dray.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        with Redis.from_url(f"unix://{dray.data_dir}/redis/redis.sock") as redis:
            keys = redis.dbsize()
        assert isinstance(keys, int)
        return cls(
            int(status["VmRSS"].split()[0]) * 1024,
            len(list((process / "fd").iterdir())),
            int(status["Threads"]),
            keys,
            len(dray.containers()),
            len(dray.volumes()),
            sum(path.is_file() for path in (dray.data_dir / "outputs").rglob("*")),
        )


class Crowd:
    """Runs jobs of each kind in turn, and knows the ids of the latest."""

    def __init__(self, dray: Served, image: Images) -> None:
        self.dray, self.latest = dray, list[str]()
        echo, cat, large = image("echo", "hi"), image("cat"), image.shell(f"cat; head -c {LARGE} /dev/zero")
        fails = {"source": image.shell("echo no >&2; exit 3")}
        always = {"source": image("true"), "always": True}
        slow = image.shell("for i in 1 2 3 4 5; do echo $i; sleep 0.2; done")
        self._kinds: list[Callable[[], None]] = [
            lambda: self._run("complete", b"hi\n", {"source": echo}, {"source": cat}),
            lambda: self._run("complete", bytes(LARGE), {"source": large}, {"source": cat}),
            lambda: self._run("error", None, {"source": cat}, fails, always),
            lambda: self._run("complete", b"1\n2\n3\n4\n5\n", {"source": slow}),
            lambda: self._cancel({"source": image("sleep", "60")}),
            lambda: self._filter(b"x" * LARGE, cat, image("wc", "-c")),
            self._vanish,
        ]
        self._cat = cat

    def run(self, count: int) -> None:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(lambda number: self._kinds[number % len(self._kinds)](), range(count)))

    def _post(self, *steps: dict[str, Any]) -> str:
        job_id = self.dray.post({"name": "soak", "labels": {"soak": "1"}, "steps": list(steps)})
        self.latest[:] = [*self.latest[-50:], job_id]
        return job_id

    def _run(self, status: str, output: bytes | None, *steps: dict[str, Any]) -> None:
        job_id = self._post(*steps)
        assert self._wait(job_id)["status"] == status
        if output is not None:
            assert self.dray.output(job_id) == output

    def _wait(self, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 600  # a machine that does other things too
        while (record := self.dray.record(job_id))["status"] == "running":
            assert time.monotonic() < deadline, record
            time.sleep(0.2)
        return record

    def _cancel(self, *steps: dict[str, Any]) -> None:
        job_id = self._post(*steps)
        time.sleep(random.uniform(0, 1))
        self.dray.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
        assert self._wait(job_id)["reason"] == "cancelled"

    def _filter(self, content: bytes, *sources: str) -> None:
        job = json.dumps({"steps": [{"source": source} for source in sources]})
        answer = self.dray.http.post("/filter", content=content, headers={"Dray-Job": job}, timeout=120)
        assert answer.content == b"%d\n" % len(content)

    def _vanish(self) -> None:
        """A client that goes away in the middle of its input."""

        def half() -> Iterator[bytes]:
            yield b"x" * 2 * MIB
            raise OSError

        with suppress(OSError):
            self.dray.http.post("/filter", content=half(), headers={"Dray-Job": json.dumps({"steps": [{"source": self._cat}]})})


@contextmanager
def followed(dray: Served, crowd: Crowd) -> Iterator[list[int]]:
    """Meanwhile the latest jobs are followed, by some to their end, by some only for a while; how many lines each saw."""
    over, seen = threading.Event(), [0] * FOLLOWERS

    def follow(number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=dray.url, timeout=30, trust_env=False) as http:
            while not over.is_set():
                if not crowd.latest:
                    time.sleep(0.1)
                    continue
                job_id, most = chance.choice(crowd.latest), chance.choice([1, 3, 10**6])
                with http.stream("GET", f"/jobs/{job_id}/log", headers={"Accept": "text/event-stream"}) as answer:
                    for line in answer.iter_lines():
                        seen[number] += line.startswith("id:")
                        most -= 1
                        if most <= 0 or over.is_set():
                            break

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(FOLLOWERS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def settled(dray: Served) -> Measure:
    """Once all jobs are deleted, and gone."""
    for job in dray.http.get("/jobs").json():
        dray.http.delete(f"/jobs/{job['id']}").raise_for_status()
    with Redis.from_url(f"unix://{dray.data_dir}/redis/redis.sock") as redis:
        until(lambda: redis.keys("dray:job:*") == [], 120, "no record is left")
    until(lambda: not any("dray.job" in container.labels for container in dray.containers()), 60, "no box is left")
    until(lambda: len(dray.volumes()) == len(dray.containers()), 60, "no volume of a job is left")
    return Measure.of(dray)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_many_jobs_and_followers_leave_a_dray_as_it_was(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(LOG_LEVEL="info", DRAY_DISK_FLOOR="0")
    dray.http.close()
    dray.http = httpx.Client(base_url=dray.url, timeout=30, trust_env=False, limits=httpx.Limits(keepalive_expiry=1))  # the server closes after 5 s
    crowd, began = Crowd(dray, image), time.monotonic()
    with followed(dray, crowd):
        crowd.run(WARM)
    before = settled(dray)
    with followed(dray, crowd) as seen:
        crowd.run(JOBS - WARM)
    after = settled(dray)
    print(f"{JOBS} jobs in {time.monotonic() - began:.0f} s, {sum(seen)} lines followed", f"after {WARM}: {before}", f"after {JOBS}: {after}", sep="\n")
    assert after.memory < before.memory + 16 * MIB
    assert after.files <= before.files + 4
    assert after.threads <= before.threads + 1
    assert (after.containers, after.volumes, after.outputs) == (before.containers, before.volumes, 0)
    assert after.keys <= before.keys + 1
