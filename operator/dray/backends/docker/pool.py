"""Pods made ahead: a volume and a running sandbox with its agent at hand, so that a job begins without waiting for them.

They are made while nothing is being begun, so that they are in no job's way. A job that comes when there is none makes
its own. Which are ready is known to this process alone, and each is given away once: after a crash they are swept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dray.backends.agent import Agent
from dray.backends.docker import names
from dray.backends.docker.engine import Engine
from dray.backends.docker.line import Multiplexed
from dray.backends.docker.sandbox import NETWORK, Sandboxes
from dray.errors import Unavailable

log = logging.getLogger(__name__)
_QUIET = 0.3  # seconds since something was last begun
_PAUSE = 5.0  # seconds after one that could not be made


@dataclass(frozen=True)
class Warm:
    """One of them. `sandbox`: the container's id; its network is NETWORK."""

    pod: str
    sandbox: str
    agent: Agent


class Pool:
    """As many as `size`, for one operator."""

    def __init__(self, engine: Engine, sandboxes: Sandboxes, operator: str, size: int) -> None:
        self._engine, self._sandboxes, self._operator, self._size = engine, sandboxes, operator, size
        self._ready: list[Warm] = []
        self._made: set[str] = set()  # pods made or being made here and not given away
        self._making: asyncio.Task[Warm] | None = None
        self._due = asyncio.Event()
        self._due.set()
        self._begun = 0  # things that are being begun for jobs
        self._quiet_at = 0.0

    @property
    def pods(self) -> Collection[str]:
        return self._made

    def take(self) -> Warm | None:
        """One that runs; it is the caller's now."""
        warm = next((warm for warm in self._ready if warm.agent.alive), None)
        if warm is not None:
            self._ready.remove(warm)
            self._made.discard(warm.pod)
            self._wait()
            self._due.set()
        return warm

    @contextmanager
    def held(self) -> Iterator[None]:
        """Something is being begun for a job: none is made meanwhile."""
        self._begun += 1
        try:
            yield
        finally:
            self._begun -= 1
            self._wait()

    def _wait(self) -> None:
        self._quiet_at = asyncio.get_running_loop().time() + _QUIET

    async def run(self) -> None:
        """Keep it filled, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._fill()
            except Unavailable as error:
                log.debug("no sandbox made ahead: %s", error)
                await asyncio.sleep(_PAUSE)
                self._due.set()

    async def stop(self) -> None:
        """Remove what nobody took. What cannot be removed now is swept by the next operator.

        One that is being made is waited for: a call that the engine still works on would make anew what is removed here.
        """
        if self._making is not None:
            await asyncio.wait([self._making])
            if self._making.exception() is None:
                self._ready.append(self._making.result())
        for warm in self._ready:
            await warm.agent.close()
        await asyncio.gather(*(self._remove(pod) for pod in list(self._made)), return_exceptions=True)

    async def _fill(self) -> None:
        for warm in [warm for warm in self._ready if not warm.agent.alive]:
            await self._remove(warm.pod)
            self._ready.remove(warm)
        loop = asyncio.get_running_loop()
        while len(self._ready) < self._size:
            left = _QUIET if self._begun else self._quiet_at - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            else:
                self._making = asyncio.create_task(self._make())
                self._ready.append(await asyncio.shield(self._making))
                self._making = None

    async def _make(self) -> Warm:
        pod = names.warm_pod()
        self._made.add(pod)
        try:
            made = await self._sandboxes.make(pod, names.of_warm(self._sandboxes.instance, pod, self._operator), NETWORK)
            assert made.line is not None  # its name is new: nobody made it before
            return Warm(pod, made.id, Agent(Multiplexed(made.line), self._due.set))
        except Unavailable:
            await self._remove(pod)
            raise

    async def _remove(self, pod: str) -> None:
        await self._engine.remove(names.sandbox(pod))
        await self._engine.remove_volume(pod)
        self._made.discard(pod)
