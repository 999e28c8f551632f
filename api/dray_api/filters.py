"""A job as a filter: the request's body is its input, the answer its output.

The body goes into Redis or the output store as it comes, under a name that no record knows; only when all of it is there
is the job recorded. So half a body makes no job, and what is left of it is removed: here, or by an operator once the
lease that this API held on it is over.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dray.errors import Full, NotFound, TooLarge, Unavailable
from dray.outputs import Outputs, large
from dray.reason import MEANINGS, Reason, Side
from dray.record import FINAL, INPUT, Input, Job
from dray.settings import Settings
from dray.store import SMALL_OUTPUT, IdempotencyKey, Laid, Store
from dray_api import jobs, params, problems
from dray_api.follow import HEARTBEAT, Followers, within
from dray_api.uploads import uploaded

_LOOK_EVERY = 64 * 2**20  # bytes between two looks at how much room there is


class Body:
    """A request's body, read once; then it tells how much that was."""

    def __init__(self, request: Request, settings: Settings, outputs: Outputs) -> None:
        self._request, self._cap, self._floor, self._outputs = request, settings.input_cap, settings.disk_floor, outputs
        self._blocks = large(self._read())
        self._hashed = hashlib.sha256()
        self._size = 0
        self.read = False  # all of it

    @property
    def input(self) -> Input | None:
        """What came; None: nothing. A first step that reads nothing is the same as one that is given nothing."""
        return Input(self._size, self._hashed.hexdigest()) if self._size else None

    async def small(self) -> bytes | None:
        """All of it where that is little; else None, and `rest` has all of it. Raises TooLarge, ClientDisconnect."""
        self._begin = await anext(self._blocks)
        return self._begin if len(self._begin) <= SMALL_OUTPUT else None

    async def rest(self) -> AsyncIterator[bytes]:
        """Raises TooLarge, Full, ClientDisconnect."""
        await self._look_for_room(params.length(self._request) or 0)
        looked = 0
        yield self._begin
        async for block in self._blocks:
            yield block
            if self._size - looked >= _LOOK_EVERY:
                await self._look_for_room(0)
                looked = self._size

    async def _read(self) -> AsyncIterator[bytes]:
        if (params.length(self._request) or 0) > (self._cap or float("inf")):
            raise self._too_large()
        async for block in self._request.stream():
            self._size += len(block)
            if self._cap and self._size > self._cap:
                raise self._too_large()
            self._hashed.update(block)
            yield block
        self.read = True

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the input is larger than {self._cap} bytes (DRAY_INPUT_CAP)")

    async def _look_for_room(self, coming: int) -> None:
        free = await self._outputs.free()
        if free is not None and free - coming < self._floor:
            raise Full(f"the output store has {free} bytes free, of which {self._floor} are to stay free (DRAY_DISK_FLOOR)")


async def take(store: Store, outputs: Outputs, job: Job, body: Body, asked: IdempotencyKey | None) -> str:
    """Record the job, once all of its input is here; its id, or that of the job that the same request made before.

    Raises what reading the body raises, and KeyReused.
    """
    small = await body.small()
    if small is not None:
        return await store.create(replace(job, input=body.input), _of(asked, body), Laid(input=small))
    async with uploaded(store, outputs, job.id) as upload:
        await outputs.put(job.id, INPUT, body.rest())
        upload.made = await store.create(replace(job, input=body.input), _of(asked, body), Laid(uploaded=True))
    return upload.made


def _of(asked: IdempotencyKey | None, body: Body) -> IdempotencyKey | None:
    """The request with its body."""
    return None if asked is None else asked.with_body(*(body.input or ()))


async def ended(store: Store, followers: Followers, request: Request, job_id: str) -> Job:
    """The job's record, once it has ended. Raises NotFound where it was deleted, ClientDisconnect, and Unavailable where this server ends."""
    gone = asyncio.ensure_future(request.receive())  # the body is read: what comes next is that the client went away
    try:
        with followers.news_of(job_id) as news:
            while not followers.closed:
                news.clear()
                with suppress(Unavailable):
                    job = await _job(store, job_id)
                    if job.phase in FINAL:
                        return job
                waiting = asyncio.ensure_future(within(news, HEARTBEAT))
                await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if gone.done():
                    raise ClientDisconnect
    finally:
        gone.cancel()
    raise Unavailable(f"this server ends; the job goes on: GET /jobs/{job_id}/output will have its output")


async def _job(store: Store, job_id: str) -> Job:
    try:
        return await store.get(job_id)
    except NotFound:
        raise NotFound(f"job {job_id} was deleted before it had ended") from None


def failure(job: Job) -> Response:
    """The answer where a job has failed: by its own fault, or by that of what it ran on."""
    assert job.reason is not None  # it ended in error
    at_fault = job.reason is not Reason.CANCELLED and MEANINGS[job.reason].side is Side.INFRASTRUCTURE
    status = HTTPStatus.BAD_GATEWAY if at_fault else HTTPStatus.UNPROCESSABLE_ENTITY
    return problems.problem(status, "Job failed", job.message, {"Content-Location": f"/jobs/{job.id}"}, job=jobs.record(job))
