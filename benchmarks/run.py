"""What a job costs beside `docker run` in a shell, and what memory bulk data takes: figures, with no verdict.

Each row takes turns: one of ours, one of the shell's, so that both meet the same machine.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import docker

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("tests", "examples")]
from kit.images import Images
from kit.serving import Served

ROUNDS = 5
MIB = 2**20


def main() -> None:
    engine = docker.from_env()
    image, dray = Images(engine), Served(engine)
    try:
        for steps in (3, 10):
            compare(f"{steps} instant steps", dray, [image("cat")] * steps, 0)
        for steps in (3, 10):
            compare(f"{steps} steps of 0.5 s, overhead per step", dray, [image("sleep", "0.5")] * steps, 0.5)
        bulk(dray, image)
    finally:
        dray.close()
        engine.close()


def compare(row: str, dray: Served, images: list[str], sleep: float) -> None:
    """Seconds from POST to seen complete, beside the shell's serial `docker run` with files between."""
    ours, shell = [], []
    dray.run({"steps": [{"source": name} for name in images]})
    for _ in range(ROUNDS):
        ours.append(timed(lambda: dray.run({"steps": [{"source": name} for name in images]})))
        shell.append(timed(lambda: serial(images)))
    if sleep:
        ours, shell = ([(seconds - sleep * len(images)) / len(images) for seconds in found] for found in (ours, shell))
    ratio = median(mine / theirs for mine, theirs in zip(ours, shell, strict=True))
    print(f"{row}: dray {spread(ours)}, serial docker run {spread(shell)}, ratio {ratio:.2f}")


def serial(images: list[str]) -> None:
    given = "/dev/null"
    for number, name in enumerate(images):
        output = f"/tmp/dray-bench-{number % 2}"
        subprocess.run(f"docker run --rm -i {name} < {given} > {output}", shell=True, check=True)
        given = output


def bulk(dray: Served, image: Images) -> None:
    """256 MiB through three steps: rate, and the most memory that all our processes took together."""
    peak = Peak(dray.process.pid)
    posted = {"steps": [{"source": image("head", "-c", str(256 * MIB), "/dev/urandom")}, {"source": image("cat")}, {"source": image("cat")}]}
    seconds = timed(lambda: dray.run(posted, within=300))
    print(f"256 MiB through 3 steps: {256 * 3 / seconds:.0f} MiB/s, peak memory of dray and its redis {peak.stop() / MIB:.0f} MiB")


class Peak:
    """Watches the resident memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
            self._most = max(self._most, sum(resident(pid) for pid in [str(self._pid), *children]))


def resident(pid: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def timed(work: Callable[[], Any]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def spread(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.0f} ms ({min(seconds) * 1000:.0f}–{max(seconds) * 1000:.0f})"


if __name__ == "__main__":
    main()
