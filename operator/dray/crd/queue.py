"""The objects that are due, each once, however often it was added; never two passes over one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Queue:
    """Of keys, for some workers in one loop. `measure` is told how many wait, whenever that changes."""

    def __init__(self, measure: Callable[[int], None]) -> None:
        self._waiting: dict[str, None] = {}  # in order
        self._taken: set[str] = set()
        self._again: set[str] = set()  # added while taken
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._measure = measure
        self._some = asyncio.Event()

    def add(self, key: str) -> None:
        if key in self._taken:
            self._again.add(key)
            return
        self._waiting[key] = None
        self._measure(len(self._waiting))
        self._some.set()

    def add_after(self, key: str, seconds: float) -> None:
        """The earliest of several counts."""
        at = asyncio.get_running_loop().time() + max(seconds, 0)
        known = self._timers.get(key)
        if known is not None:
            if known.when() <= at:
                return
            known.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(at, self._ring, key)

    def _ring(self, key: str) -> None:
        del self._timers[key]
        self.add(key)

    async def take(self) -> str:
        """The next one; `done` gives it back."""
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        key = next(iter(self._waiting))
        del self._waiting[key]
        self._taken.add(key)
        self._measure(len(self._waiting))
        return key

    def done(self, key: str) -> None:
        self._taken.remove(key)
        if key in self._again:
            self._again.remove(key)
            self.add(key)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._measure(0)
