"""How fast bytes go through the steps of a job, and what memory that takes.

The first step writes one file of its image again and again, so that making the bytes costs next to nothing and each
peer runs the same command; the second reads them all and keeps none.
"""

from __future__ import annotations

import random
from functools import partial

from benchmarks import processes, shell
from benchmarks.bench import Bench, Found, containers, seconds, settled, turns
from benchmarks.rows import DRAY, FILES, NO_CONTAINER
from benchmarks.server import Server
from kit.serving import Served

MIB = 2**20
PART = 64 * MIB
READ = ("dd", "bs=1M", "iflag=fullblock", "of=/dev/null")
WITHIN = 600  # seconds


def measure(bench: Bench) -> Found:
    found = Found()
    with bench.served() as served:
        for kind, part in (("random", random.Random(1).randbytes(PART)), ("text", _lines(PART))):
            _measure(bench, served, found, kind, part)
    return found


def _measure(bench: Bench, served: Served, found: Found, kind: str, part: bytes) -> None:
    times = bench.sized(16, 1)
    images = [bench.image("cat", *["/part"] * times, files={"/part": part}), bench.image(*READ)]
    source = bench.dir / f"{kind}.part"
    source.write_bytes(part)
    server, peaks, jobs = Server(served.url), list[float](), list[str]()

    def ours() -> float:
        with processes.Peak(served.process.pid, partial(containers, served)) as peak:
            took = seconds(lambda: jobs.append(server.run(images, WITHIN)))
        peaks.append(peak.bytes / MIB)
        _check(server, jobs[-1], times * PART)
        server.delete(jobs[-1])  # its log is data: it would count in every later turn
        settled(served)
        return rate(took)

    def rate(took: float) -> float:
        return times * PART / took / 1e6

    bare = f"busybox cat {f'{source} ' * times} > {bench.dir}/passed && busybox {' '.join(READ)} < {bench.dir}/passed"
    measures = {
        DRAY: ours,
        FILES: lambda: rate(seconds(partial(shell.files, images, bench.dir))),
        NO_CONTAINER: lambda: rate(seconds(partial(shell.run, bare))),
    }
    found.rows[f"bulk-{kind}"] = turns(bench.rounds, measures)
    found.rows[f"memory-{kind}"] = {DRAY: peaks}
    server.close()
    (bench.dir / "passed").unlink()
    source.unlink()


def _check(server: Server, job_id: str, size: int) -> None:
    passed = server.get(f"/jobs/{job_id}")["steps"][1]["bytesIn"]
    assert passed == size, f"{passed} bytes of {size} were passed on"


def _lines(size: int) -> bytes:
    """Lines of some 60 bytes."""
    words = random.Random(2).choices(["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"], k=size // 6)
    lines = (f"{number} " + " ".join(words[number * 8 : number * 8 + 8]) for number in range(size // 50))
    text = "\n".join(lines).encode()[: size - 1]
    assert len(text) == size - 1, len(text)
    return text + b"\n"
