"""What a group of rows is given to measure with, and what it gives back."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from kit.images import Images
from kit.process import until
from kit.serving import Served

_SETTLED_WITHIN, _MOMENT = 60, 0.3  # seconds

Series = dict[str, list[float]]
"""Values by who reached them, a value for each round."""


@dataclass(frozen=True)
class Bench:
    """`peers`: URL by name, of servers with Dray's contract. `dir` is for files, on the engine's own disk where one is found there."""

    engine: docker.DockerClient
    image: Images
    rounds: int
    quick: bool
    peers: Mapping[str, str]
    dir: Path

    def sized(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole

    @contextmanager
    def served(self, **env: str | None) -> Iterator[Served]:
        """A `dray serve` as users run it."""
        served = Served(self.engine, env={"LOG_LEVEL": "info", **env})
        try:
            yield served
        finally:
            quietly(served.close)


def quietly(close: Callable[[], object]) -> None:
    """The kit prints its servers' logs, for pytest; here they are shown where closing fails."""
    with redirect_stdout(io.StringIO()) as said:
        try:
            close()
        except BaseException as failure:
            failure.add_note(said.getvalue())
            raise


def containers(served: Served, *labels: str) -> list[str]:
    """Ids of this server's containers that have these labels too."""
    filters = {"label": [f"dray.instance={served.instance}", *labels]}
    return [container["Id"] for container in served.engine.api.containers(all=True, filters=filters)]


def settled(served: Served) -> None:
    """Waits until what was jobs' is removed, and a moment more for what is made ahead: the next turn is another's."""
    until(lambda: not containers(served, "dray.job"), _SETTLED_WITHIN, "everything of the jobs is removed")
    time.sleep(_MOMENT)


@dataclass
class Found:
    """Series by row, why a row was left out, and what else was counted."""

    rows: dict[str, Series] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def turns(rounds: int, measures: Mapping[str, Callable[[], float]]) -> Series:
    """Each measures once a round, one after the other, so that all meet the same machine. What one left to be written is written before the next."""
    series: Series = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            os.sync()
            series[name].append(measure())
    return series


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
