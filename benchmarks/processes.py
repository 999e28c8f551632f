"""What our own processes take, as /proc tells: a process and all its descendants."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_EVERY, _LOOK_EVERY = 0.05, 10  # seconds between two samples of memory; samples between two looks for runners
RUNNER = "dray-runner"


def tree(pid: int) -> list[int]:
    """It and its descendants that are there."""
    found = [pid]
    for parent in found:
        try:
            found += [int(child) for task in (PROC / str(parent) / "task").iterdir() for child in (task / "children").read_text().split()]
        except OSError:  # it has ended meanwhile
            continue
    return found


def cpu(pid: int) -> float:
    """Seconds of user and system time of the tree, children that have ended included."""
    return sum(_ticks(each) for each in tree(pid)) / _TICKS


def memory(pids: list[int]) -> int:
    """Bytes, as the sum of proportional set sizes: a page shared by two counts once."""
    return sum(_pss(pid) for pid in pids)


def runners(containers: list[str]) -> list[int]:
    """The runners that are the first process of these containers, by id, or were executed in them."""
    found = []
    for folder in PROC.glob("[0-9]*"):
        try:
            ours = (folder / "comm").read_text().strip() == RUNNER and any(each in (folder / "cgroup").read_text() for each in containers)
        except OSError:
            continue
        found += [int(folder.name)] if ours else []
    return found


class Peak:
    """`with`: the most memory that a tree and the runners in `containers()` took together, in `.bytes` afterwards."""

    def __init__(self, pid: int, containers: Callable[[], list[str]]) -> None:
        self.bytes = 0
        self._pid, self._containers = pid, containers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        sample, inside = 0, list[int]()
        while not self._over.wait(_EVERY):
            if sample % _LOOK_EVERY == 0:
                inside = runners(self._containers())
            self.bytes = max(self.bytes, memory(tree(self._pid) + inside))
            sample += 1


def _ticks(pid: int) -> int:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0
    return sum(int(number) for number in stat.rpartition(")")[2].split()[11:15])  # utime, stime, cutime, cstime


def _pss(pid: int) -> int:
    try:
        rollup = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)
