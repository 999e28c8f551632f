"""What each route does: ask the store, answer in Dray's JSON. openapi.py describes them, app.py puts them together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from dray import spec
from dray.errors import NotFinished, NotFound, Unavailable
from dray.outputs import Outputs
from dray.state import Job, Phase, new_job
from dray.store import SMALL_OUTPUT, Store
from dray_api import answers, body, jobs

_READY_WITHIN = 5.0  # seconds


class Routes:
    """The API's routes on a store and an output store. `ready` raises Unavailable, naming what does not answer."""

    def __init__(self, store: Store, outputs: Outputs, ready: Callable[[], Awaitable[None]]) -> None:
        self._store, self._outputs, self._ready = store, outputs, ready

    async def create(self, request: Request) -> Response:
        wanted = spec.parse(body.decode(await body.read(request)))
        job = new_job(jobs.new_id(), wanted, time.time_ns() // 1000)
        await self._store.create(job)
        return answers.json(jobs.posted(job.id, wanted), 201, {"Location": f"/jobs/{job.id}"})

    async def listing(self) -> Response:
        return await answers.json_pieces(jobs.listing(self._store))

    async def show(self, request: Request) -> Response:
        return answers.json(jobs.record(await self._store.get(_id(request))))

    async def log(self, request: Request) -> Response:
        index, limit = jobs.index_of(request.query_params.get("index")), jobs.limit_of(request.query_params.get("limit"))
        return await answers.json_pieces(jobs.log(self._store, _id(request), index, limit))

    async def output(self, request: Request) -> Response:
        job = await self._store.get(_id(request))
        size = _output_size(job)
        if size > SMALL_OUTPUT:
            return await self._large_output(job, size)
        kept = await self._store.small_output(job.id)
        if kept is None:
            raise NotFound(f"the output of job {job.id} is gone")
        return Response(kept, media_type="application/octet-stream")

    async def _large_output(self, job: Job, size: int) -> Response:
        try:
            return await answers.octets(self._outputs.read(job.id), size)
        except NotFound:
            raise NotFound(f"the output of job {job.id} is not in the output store that this API was given (DRAY_OUTPUTS)") from None

    async def delete(self, request: Request) -> Response:
        await self._store.doom(_id(request))
        return Response(status_code=204)

    async def healthz(self) -> Response:
        return answers.json({"status": "ok"})

    async def readyz(self) -> Response:
        try:
            async with asyncio.timeout(_READY_WITHIN):
                await self._ready()
        except TimeoutError:
            raise Unavailable(f"Redis or the engine does not answer within {_READY_WITHIN:.0f} seconds") from None
        return answers.json({"status": "ok"})


def _id(request: Request) -> str:
    job_id: str = request.path_params["id"]
    if not jobs.may_be_id(job_id):
        raise NotFound("there is no such job")
    return job_id


def _output_size(job: Job) -> int:
    """Raises NotFinished where there is no output."""
    if job.phase is Phase.ERROR:
        raise NotFinished(f"the job ended in error, so it has no output: {job.message}")
    if job.phase is not Phase.COMPLETE:
        raise NotFinished("the job is still running: its output is there once it is complete")
    if job.output is None:
        raise Unavailable("the job's output is not recorded")
    return job.output
