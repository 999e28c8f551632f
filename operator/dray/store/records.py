"""Records: made, read, saved, and what clients tell of them."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import orjson

from dray import metrics, traces
from dray.clock import microseconds
from dray.errors import Finished, KeyReused, NotFound, NotKept, Stale, Unavailable
from dray.reason import Reason
from dray.record import FINAL, Beside, Job, Phase, Told
from dray.spec import JobSpec
from dray.store import keys
from dray.store.connection import Connection
from dray.store.scripts import records as scripts

KEY_KEPT = 86_400  # seconds that an Idempotency-Key is remembered
_CACHED = 4096  # bytes of a spec
_BESIDE = ("doomed", "cancelled", "held", "owner", "fence", "version")
_DOOMED = _BESIDE.index("doomed")


class IdempotencyKey(NamedTuple):
    """A client's word for one request, and what the request was: both only as digests."""

    key: str
    request: str

    @classmethod
    def of(cls, key: str, *request: str | bytes) -> IdempotencyKey:
        return cls(_digest(key), _digest(*request))

    def with_body(self, *body: str | int) -> IdempotencyKey:
        """Of a request that came with this besides."""
        return self._replace(request=_digest(self.request, *map(str, body)))


class Kept(NamedTuple):
    """Small outputs of another job: of which steps, and INPUT for its input."""

    job_id: str
    names: tuple[int | str, ...]


class Laid(NamedTuple):
    """What a job has from its beginning. `uploaded`: something in the output store, under a lease (`uploads.py`)."""

    kept: Kept = Kept("", ())
    input: bytes = b""
    uploaded: bool = False


_NOTHING = Laid()


class Raw(NamedTuple):
    """A record as it lies in Redis: from the same bytes comes the same record."""

    spec: bytes
    state: bytes
    beside: tuple[bytes | None, ...]

    def job(self, job_id: str) -> Job:
        return Job.load(job_id, _spec(self.spec), orjson.loads(self.state), _beside(*self.beside))


class Records(Connection):
    async def create(self, job: Job, key: IdempotencyKey | None = None, laid: Laid = _NOTHING) -> str:
        """Record a new job: in the lists, waiting, and woken for; its id. Again with the same id: nothing more.

        With a key that came before, in the same request: the id of the job that it made. Raises KeyReused where it was
        another request. What is kept of another job becomes this one's too; raises NotKept where it is gone. Raises Unavailable
        where the upload's lease is over.
        """
        spec, indexes = job.spec.model_dump_json(exclude_unset=True), orjson.dumps(tuple(keys.indexes(job.spec)))
        source = keys.outputs(laid.kept.job_id) if laid.kept.names else ""
        found = await self._run(
            scripts.CREATE,
            [
                *(keys.job(job.id), keys.SEQUENCE, keys.JOBS, keys.waiting(job.spec.backend), keys.status(job.phase)),
                *(keys.idempotency(key.key) if key else "", source, keys.outputs(job.id), keys.UPLOADS),
            ],
            [
                *(job.id, spec, orjson.dumps(job.dump()), brief(job.spec), indexes, keys.WAKE),
                *(key.request if key else "", KEY_KEPT, orjson.dumps(laid.kept.names), laid.input, int(laid.uploaded)),
                job.spec.backend or "",
            ],
        )
        if found == b"reused":
            raise KeyReused("this Idempotency-Key came before, with another request")
        if found == b"late":
            raise Unavailable("what was uploaded for the job is given up: this server was stopped, or cut off from Redis, for too long")
        if found == b"gone":
            raise NotKept("the output to go on from is no longer kept")
        return str(found[0].decode())

    async def load(self, job_id: str) -> Job | None:
        """The record, also a doomed one; None: there is none."""
        raw = await self._raw(job_id)
        return None if raw is None else raw.job(job_id)

    async def get(self, job_id: str) -> Job:
        """The record as clients may see it. Raises NotFound."""
        return (await self.get_raw(job_id)).job(job_id)

    async def get_raw(self, job_id: str) -> Raw:
        """The same, for who may have seen it before."""
        raw = await self._raw(job_id)
        if raw is None or raw.beside[_DOOMED] is not None:
            raise unknown(job_id)
        return raw

    async def _raw(self, job_id: str) -> Raw | None:
        spec, state, *beside = await self._send("HMGET", keys.job(job_id), "spec", "state", *_BESIDE)
        return None if state is None else Raw(spec, state, tuple(beside))

    async def save(self, job: Job) -> Job:
        """Record a job that begins, goes on or ends; the record's new version. Raises Stale when it changed since it was read, or is another operator's."""
        ended = "" if job.phase not in FINAL else job.finished_at or job.created_at
        queue = keys.waiting(job.spec.backend)
        saved = await self._run(
            scripts.SAVE,
            [keys.job(job.id), queue, keys.status(Phase.RUNNING), keys.status(job.phase), keys.FINISHED, keys.EXPIRING],
            [job.id, job.version, job.fence, _nonce(), orjson.dumps(job.dump()), job.pod or "", ended, _expires_at(job, ended), keys.NEWS],
        )
        if not saved:
            raise Stale(job.id)
        return replace(job, version=job.version + 1)

    # --- what clients tell

    async def doom(self, job_id: str) -> None:
        """Delete a job for its clients; an operator removes the rest. Raises NotFound."""
        statuses = [keys.status(phase) for phase in Phase if phase is not Phase.WAITING]
        lists = orjson.dumps([keys.JOBS, keys.FINISHED, keys.EXPIRING, *keys.QUEUES, *statuses])
        if not await self._run(scripts.DOOM, [keys.job(job_id), keys.ACTIVE], [job_id, _nonce(), lists, keys.WAKE, keys.NEWS]):
            raise unknown(job_id)

    async def cancel(self, job_id: str, always: bool = False) -> Job:
        """The record after it. A job that has not begun has ended with this; another one's operator is told. Raises NotFound, Finished.

        `always`: its steps marked always are to be stopped too.
        """
        while True:
            job = await self.get(job_id)
            if job.phase is Phase.ERROR and job.reason is Reason.CANCELLED:
                return job
            if job.phase in FINAL or job.fence:
                await self._cancel(job_id, always)
                return await self.get(job_id)
            try:
                ended = await self.save(_cancelled(job))
            except Stale:
                continue
            metrics.observe(job, ended)
            traces.observe(job, ended)
            return ended

    async def _cancel(self, job_id: str, always: bool) -> None:
        _told(job_id, await self._run(scripts.CANCEL, [keys.job(job_id)], [job_id, 1 + always, keys.WAKE]))

    async def hold(self, job_id: str, held: bool) -> None:
        """Begin no step of it, or go on. A job that waits keeps its place. Raises NotFound, Finished."""
        _told(job_id, await self._run(scripts.HOLD, [keys.job(job_id), keys.waiting(None)], [job_id, int(held), keys.WAKE]))

    # --- the end

    async def retire(self, job: Job) -> None:
        """Nothing is left to do for this job. Raises Stale when it changed since it was read, as when it is doomed, or is another operator's."""
        if not await self._run(scripts.RETIRE, [keys.job(job.id), keys.ACTIVE], [job.id, job.version, job.fence]):
            raise Stale(job.id)

    async def forget(self, job: Job) -> None:
        """Remove everything of a doomed job. Raises Stale where it is not doomed, or is another operator's."""
        known = [keys.job(job.id), keys.ACTIVE, keys.log(job.id), keys.cursors(job.id), keys.outputs(job.id)]
        if not await self._run(scripts.FORGET, known, [job.id, job.fence, keys.NEWS]):
            raise Stale(job.id)


def _beside(doomed: bytes | None, cancelled: bytes | None, held: bytes | None, *lease: bytes | None) -> Beside:
    owner, fence, version = lease
    told = Told(doomed is not None, int(cancelled or 0), held is not None)
    return Beside(told, owner.decode() if owner else None, int(fence or 0), int(version or 0))


def _expires_at(job: Job, ended: int | str) -> int | str:
    """In milliseconds; empty where it has not ended, or does not say how long it is kept after that."""
    seconds = job.spec.ttlSecondsAfterFinished
    return "" if seconds is None or isinstance(ended, str) else ended // 1000 + 1000 * seconds


def brief(spec: JobSpec) -> bytes:
    """What a list shows of it, apart from the state."""
    return orjson.dumps([spec.name, spec.labels])


def unknown(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id[:64]}")


def _spec(kept: bytes) -> JobSpec:
    """A spec never changes, and a job is asked for again and again."""
    return _cached(kept) if len(kept) <= _CACHED else JobSpec.model_validate_json(kept)


@lru_cache(1024)
def _cached(kept: bytes) -> JobSpec:
    return JobSpec.model_validate_json(kept)


def _cancelled(job: Job) -> Job:
    return replace(job, phase=Phase.ERROR, reason=Reason.CANCELLED, message="cancelled before it began", finished_at=microseconds())


def _told(job_id: str, answer: bytes) -> None:
    if answer == b"unknown":
        raise unknown(job_id)
    if answer == b"finished":
        raise Finished(f"job {job_id} has already ended")


def _digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()


def _nonce() -> str:
    """A word for one call, the same when the client library sends the command again."""
    return secrets.token_hex(8)
