"""What asyncio leaves to its users."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any


class Background(set[asyncio.Task[Any]]):
    """Tasks that go on by themselves; each leaves when it has ended."""

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.add(task)
        task.add_done_callback(self.discard)
        return task


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait until they have ended; how is of no interest.

    Again every half second: before Python 3.12 a time-out that passes at the same moment can swallow a cancellation
    (python/cpython#86296).
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.5)
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(told: asyncio.Event, work: Coroutine[Any, Any, None], drain: Callable[[asyncio.Task[None]], Coroutine[Any, Any, None]] | None = None) -> None:
    """The work until it is told to end, or until it fails. Then `drain` may wait for what is to be finished; the work goes on meanwhile."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(told.wait())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        elif drain is not None:
            await drain(working)
    finally:
        await end(working, waiting)


async def finished(work: Coroutine[Any, Any, None]) -> None:
    """The work, to its end even where this is cancelled meanwhile: for what must not be left half done."""
    working = asyncio.create_task(work)
    try:
        await asyncio.shield(working)
    finally:
        while not working.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([working])
