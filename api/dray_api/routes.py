"""What each route does: ask the store, answer in Dray's JSON. openapi.py describes them, app.py puts them together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dray import policy, spec
from dray.clock import microseconds
from dray.errors import DrayError, FieldError, Invalid, NotFinished, NotFound, Unavailable
from dray.outputs import Outputs
from dray.record import FINAL, INPUT, Job, Phase, new_job
from dray.settings import Settings
from dray.store import SMALL_OUTPUT, IdempotencyKey, Store
from dray_api import answers, body, filters, follow, jobs, metrics, params, problems, rerun

_READY_WITHIN = 5.0  # seconds
_PREFLIGHT_WITHIN = 30.0
_PREFLIGHTS = 16  # at once: each that waits has a connection to Redis


@dataclass(frozen=True)
class Parts:
    """What the routes stand on. `ready` raises Unavailable, naming what does not answer."""

    settings: Settings
    store: Store
    outputs: Outputs
    ready: Callable[[], Awaitable[None]]
    followers: follow.Followers


class Routes:
    def __init__(self, parts: Parts) -> None:
        self._settings, self._store, self._outputs = parts.settings, parts.store, parts.outputs
        self._ready, self._followers = parts.ready, parts.followers
        self._preflights = asyncio.Semaphore(_PREFLIGHTS)

    # --- jobs made

    async def create(self, request: Request) -> Response:
        wanted = params.Wanted(request, "create")
        job = await self._new(wanted, body.decode(await body.read(request)))
        made = await self._store.create(job, wanted.asked(job.spec))
        return answers.json(jobs.posted(made, job.spec), 201, {"Location": f"/jobs/{made}"})

    async def filter(self, request: Request) -> Response:
        given = filters.Body(request, self._settings, self._outputs)
        try:
            wanted, wait = params.Wanted(request, "filter"), params.flag(request, "wait", "true")
            job = await self._new(wanted, body.decode(params.job(request), "Dray-Job"))
            made = await filters.take(self._store, self._outputs, job, given, wanted.asked(job.spec))
        except DrayError as error:
            return problems.of(error) if given.read else answers.Early(problems.of(error))
        if not wait:
            return answers.json(jobs.posted(made, job.spec), 201, {"Location": f"/jobs/{made}"})
        return await self._filtered(request, made, wanted.key)

    async def _filtered(self, request: Request, job_id: str, key: str | None) -> Response:
        try:
            job = await filters.ended(self._store, self._followers, request, job_id)
        except ClientDisconnect:
            if key is None:  # with one it can come back
                with suppress(DrayError):
                    await self._store.cancel(job_id)
            raise
        if job.phase is Phase.ERROR:
            return filters.failure(job)
        answer = await self._output(job, job.spec.pipe - 1, _output_size(job))
        answer.headers["Content-Location"] = f"/jobs/{job_id}/output"
        return answer

    async def _new(self, wanted: params.Wanted, given: object) -> Job:
        """Raises Invalid where it is no job, or one that the settings or a preflight refuse."""
        job = new_job(jobs.new_id(), spec.parse(given), microseconds())
        self._allow(job.spec)
        if wanted.preflight:
            async with self._preflights:
                job = replace(job, pins=await self._store.preflight(job.spec, _PREFLIGHT_WITHIN))
        return job

    async def rerun(self, request: Request) -> Response:
        key, job = params.idempotency_key(request), await self._store.get(params.job_id(request))
        first = params.first_step(request, job.spec.pipe)
        self._allow(job.spec)
        new = rerun.again(job, first)
        asked = None if key is None else IdempotencyKey.of(key, "rerun", job.id, str(first))
        made = await rerun.create(self._store, self._outputs, new, first, asked)
        return answers.json(jobs.posted(made, job.spec) | {"rerunOf": job.id}, 201, {"Location": f"/jobs/{made}"})

    def _allow(self, wanted: spec.JobSpec) -> None:
        """Raises Invalid where the settings do not allow the job."""
        refused = [FieldError(field, fault.message) for field, fault in policy.refusals(wanted, self._settings)]
        if refused:
            raise Invalid(refused)

    # --- jobs seen

    async def listing(self, request: Request) -> Response:
        asked = params.listing(request)
        if asked is None:
            return await answers.json_pieces(jobs.listing(self._store))
        found, cursor = await self._store.page(*asked)
        headers = {} if cursor is None else {"Link": f'<{_next(request, cursor)}>; rel="next"'}
        return answers.json([jobs.summary(job) for job in found], headers=headers)

    async def show(self, request: Request) -> Response:
        job_id = params.job_id(request)
        return answers.encoded(jobs.shown(job_id, await self._store.get_raw(job_id)))

    async def spec(self, request: Request) -> Response:
        job = await self._store.get(params.job_id(request))
        return answers.json(jobs.posted(job.id, job.spec))

    async def log(self, request: Request) -> Response:
        if params.wants_events(request):
            return await answers.events(follow.events(self._store, self._followers, params.job_id(request), params.resumed_at(request)))
        job_id, query = params.job_id(request), params.query(request)
        index, limit = params.index_of(query.get("index")), params.limit_of(query.get("limit"))
        if limit is not None and limit <= jobs.LOG_PAGE:
            return answers.encoded(await jobs.few_lines(self._store, job_id, index, limit))
        return await answers.json_pieces(jobs.log(self._store, job_id, index, limit))

    async def output(self, request: Request) -> Response:
        job = await self._store.get(params.job_id(request))
        return await self._output(job, job.spec.pipe - 1, _output_size(job))

    async def step_output(self, request: Request) -> Response:
        job = await self._store.get(params.job_id(request))
        step = params.step(request, len(job.steps))
        state = job.steps[step]
        if step >= job.spec.pipe or state.phase is not Phase.COMPLETE or state.bytes_out is None:
            raise NotFound(f"step {step + 1} of job {job.id} has no output: it is marked always, or has not completed")
        return await self._output(job, step, state.bytes_out)

    async def input(self, request: Request) -> Response:
        job = await self._store.get(params.job_id(request))
        if job.input is None:
            raise NotFound(f"job {job.id} came without an input")
        return await self._output(job, INPUT, job.input.size)

    async def _output(self, job: Job, name: int | str, size: int) -> Response:
        if size > SMALL_OUTPUT:
            return await self._large_output(job, name, size)
        kept = await self._store.small_output(job.id, name)
        if kept is None:
            raise _not_kept(job, name)
        return answers.few_octets(kept)

    async def _large_output(self, job: Job, name: int | str, size: int) -> Response:
        try:
            return await answers.octets(self._outputs.read(job.id, name), size)
        except NotFound:
            raise _not_kept(job, name, ", or not in the output store that this API was given (DRAY_OUTPUTS)") from None

    # --- jobs ended

    async def cancel(self, request: Request) -> Response:
        job = await self._store.cancel(params.job_id(request), params.flag(request, "always"))
        return answers.json(jobs.record(job), 200 if job.phase in FINAL else 202)

    async def delete(self, request: Request) -> Response:
        await self._store.doom(params.job_id(request))
        return Response(status_code=204)

    # --- the server itself

    async def healthz(self, _: Request) -> Response:
        return answers.json({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        try:
            async with asyncio.timeout(_READY_WITHIN):
                await self._ready()
        except TimeoutError:
            raise Unavailable(f"Redis or the engine does not answer within {_READY_WITHIN:.0f} seconds") from None
        return answers.json({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        return Response(await metrics.page(self._store), media_type=metrics.MEDIA_TYPE)


def _next(request: Request, cursor: int) -> str:
    """The request's own path and query, with another cursor."""
    kept = [(name, value) for name, value in params.query(request).multi_items() if name != "cursor"]
    return f"{request.scope['raw_path'].decode('ascii')}?{urlencode([*kept, ('cursor', str(cursor))])}"


def _not_kept(job: Job, name: int | str, else_: str = "") -> NotFound:
    if isinstance(name, str):
        return NotFound(f"the {name} of job {job.id} is not kept{else_}")
    return NotFound(f"the output of step {name + 1} of job {job.id} is not kept (DRAY_KEEP_OUTPUTS){else_}")


def _output_size(job: Job) -> int:
    """Raises NotFinished where there is no output."""
    if job.phase is Phase.ERROR:
        raise NotFinished(f"the job ended in error, so it has no output: {job.message}")
    if job.phase is not Phase.COMPLETE:
        raise NotFinished("the job is still running: its output is there once it is complete")
    if job.output is None:
        raise Unavailable("the job's output is not recorded")
    return job.output
