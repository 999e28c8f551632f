"""What the API lays into the output store before there is a record of its job: under a lease, so that what a crash left is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from dray.errors import Unavailable
from dray.store import keys
from dray.store.connection import Connection
from dray.store.scripts import OVER, leases
from dray.tasks import end

LEASE = 30.0  # seconds


class Uploads(Connection):
    @asynccontextmanager
    async def uploading(self, job_id: str) -> AsyncIterator[None]:
        """Something is laid into the output store for a job to be: meanwhile nobody takes it for left behind.

        `create` of the job ends the lease. Where it has not, `uploaded_nothing` is to be called, or the lease runs out.
        """
        await self._lease(job_id, anew=True)
        renewing = asyncio.create_task(self._renew(job_id))
        try:
            yield
        finally:
            await end(renewing)

    async def uploaded_nothing(self, job_id: str) -> None:
        """Nothing of the job lies in the output store any more."""
        await self._send("ZREM", keys.UPLOADS, job_id)

    async def abandoned(self, count: int) -> list[str]:
        """Ids of jobs that will never be recorded, for which something may lie in the output store."""
        return [job_id.decode() for job_id in await self._run(OVER, [keys.UPLOADS], [count])]

    async def _renew(self, job_id: str) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            with suppress(Unavailable):
                await self._lease(job_id, anew=False)

    async def _lease(self, job_id: str, anew: bool) -> None:
        """One that has run out is not renewed."""
        await self._run(leases.LEASE, [keys.UPLOADS], [job_id, round(LEASE * 1000), int(anew)])
