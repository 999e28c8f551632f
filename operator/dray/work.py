"""One job's work: passes over it whenever it is woken, until nothing is left to do for it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

from dray.errors import Stale, Unavailable
from dray.reconcile import Reconciler
from dray.tasks import end

log = logging.getLogger(__name__)
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 5.0  # seconds: back-off of a job that met Unavailable


class Work:
    """One job's tasks. `freed` is called when the job has ended, `done` when nothing is left to do for it."""

    def __init__(self, reconciler: Reconciler, freed: Callable[[], None], done: Callable[[], None]) -> None:
        self._reconciler, self._freed, self._done = reconciler, freed, done
        self._woken = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    @property
    def over(self) -> bool:
        return self._reconciler.over

    def wake(self) -> None:
        self._woken.set()

    def reread(self) -> None:
        self._reconciler.forget()
        self._woken.set()

    async def _run(self) -> None:
        shipping = asyncio.create_task(self._reconciler.shipper.run())
        pause = _FIRST_PAUSE
        try:
            while not self._reconciler.done:
                await self._wait()
                if await self._passes():
                    pause = _FIRST_PAUSE
                else:
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                    pause = min(2 * pause, _LAST_PAUSE)
                    self._woken.set()
        finally:
            await end(shipping)
        self._done()

    async def _wait(self) -> None:
        """Until it is woken, or something is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._reconciler.pause):
                await self._woken.wait()
        self._woken.clear()

    async def _passes(self) -> bool:
        """Passes until nothing is due; False when one met something that does not answer."""
        extra = {"job": self._reconciler.job_id}
        try:
            while await self._reconciler.step():
                if self.over:
                    self._freed()
        except Stale:
            self._reconciler.forget()
            self._woken.set()
        except Unavailable as error:
            self._reconciler.forget()
            log.warning("backing off: %s", error, extra=extra)
            return False
        except Exception:
            self._reconciler.forget()
            log.exception("a pass failed; backing off", extra=extra)
            return False
        return True
