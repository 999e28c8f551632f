"""Log shipping: from the log files in a job's volume to the store, chunk by chunk, each line once whatever crashes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from dray import metrics
from dray.backends import Backend
from dray.errors import Stale, Unavailable
from dray.log import Cursor, Tail
from dray.pod import Key
from dray.record import Job
from dray.store import Store

log = logging.getLogger(__name__)
_TAIL = 64 * 2**10  # bytes that a runner may write of a log whose cap is reached
_PAUSE = 0.5  # seconds after something did not answer


class Shipper:
    """Ships the log of one job. `run` does so as it grows; `drain` once more, to its end."""

    def __init__(self, job_id: str, store: Store, backend: Backend, cap: int) -> None:
        """`cap`: bytes of log that are kept of a job; the runners keep to it, but a step may write into the files itself."""
        self._job_id, self._store, self._backend, self._cap = job_id, store, backend, cap
        self._tails: dict[Key, Tail] = {}
        self._cursors: Mapping[Key, Cursor] | None = None
        self._job: Job | None = None
        self._grown = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def seen(self, job: Job) -> None:
        """The pod was looked at: ship what there is."""
        self._job = job
        self._grown.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            try:
                if self._job is not None and not self._job.told.doomed:
                    await self.drain(self._job)
            except (Stale, Unavailable, FileNotFoundError) as error:
                log.debug("log waits: %s", error, extra={"job": self._job_id})
                await asyncio.sleep(_PAUSE)

    async def drain(self, job: Job) -> None:
        """Ship every whole line of the log files as they were at the last look, step after step."""
        async with self._one_at_a_time:
            found = sorted((key, size) for key, size in self._backend.logs(job).items() if job.had(key))
            left = self._cap + _TAIL * len(found)
            for key, size in found:
                await self._ship(job, key, min(size, left))
                left -= min(size, left)

    async def _ship(self, job: Job, key: Key, size: int) -> None:
        tail = self._tails.get(key) or await self._tail(key)
        try:
            while not tail.damaged and tail.offset < size and (raw := await self._backend.read_log(job, key, tail.offset)):
                chunk = tail.feed(raw[: size - tail.offset])
                if chunk is not None:
                    await self._store.append(self._job_id, key, chunk, job.fence)
                    metrics.shipped(chunk.lines, len(chunk.payload))
        except (Stale, Unavailable):
            self._tails.clear()  # what was fed but not kept must be read again, from where the store says
            self._cursors = None
            raise
        self._tails[key] = tail

    async def _tail(self, key: Key) -> Tail:
        if self._cursors is None:
            self._cursors = await self._store.cursors(self._job_id)
        return Tail(self._cursors.get(key, Cursor()))
