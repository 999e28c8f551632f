"""What is laid into the output store for a job before it is recorded: it stays only if that is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dray.errors import Unavailable
from dray.outputs import Outputs
from dray.store import Store


@dataclass
class Upload:
    """`made`: the id of the job that was made of it; empty: none yet."""

    made: str = ""


@asynccontextmanager
async def uploaded(store: Store, outputs: Outputs, job_id: str) -> AsyncIterator[Upload]:
    """Lay something, and record the job, meanwhile.

    Where Redis does not say whether it did, what was laid stays: if there is no such job an operator removes it, when the lease is over.
    """
    upload = Upload()
    async with store.uploading(job_id):
        try:
            yield upload
        except Unavailable:
            raise
        except BaseException:
            await _remove(store, outputs, job_id)
            raise
        if upload.made != job_id:
            await _remove(store, outputs, job_id)


async def _remove(store: Store, outputs: Outputs, job_id: str) -> None:
    await outputs.remove(job_id)
    await store.uploaded_nothing(job_id)
