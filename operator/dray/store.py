"""Every Redis key, command and script. The API and the operator meet only here.

Keys:
    dray:instance           a name for this Redis, which the engine's labels carry: what is whose
    dray:sequence           counts jobs
    dray:jobs               zset of ids by sequence: what GET /jobs lists
    dray:waiting            zset of ids by sequence: not yet begun
    dray:active             zset of ids by sequence: begun, ended but not cleaned up, or deleted but not gone
    dray:job:ID             hash: spec, state (JSON), version, sequence, doomed
    dray:job:ID:log         stream of chunks (log.py), the id of each `0-<number of its first line + 1>`
    dray:job:ID:log:cursors hash: STEP.ATTEMPT → log.Cursor, and `lines` → how many are kept
    dray:job:ID:output      the last step's output, where it is small
    dray:wake               channel: ids of jobs to look at

A client library may send a command again whose reply was lost, so every write is a script that can run twice: keyed by
id (create, doom), by the record's version (save) or by the log's cursor (append).
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import orjson
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from dray.errors import NotFound, Stale, Unavailable
from dray.log import Chunk, Cursor
from dray.spec import JobSpec
from dray.state import Job

INSTANCE = "dray:instance"
SEQUENCE = "dray:sequence"
JOBS = "dray:jobs"
WAITING = "dray:waiting"
ACTIVE = "dray:active"
WAKE = "dray:wake"
SMALL_OUTPUT = 64 * 2**10  # bytes: an output up to this size is kept in Redis
_PAGE = 5000  # ids read at a time
_CONNECTIONS = 64  # to Redis, at most; who finds none free waits for one
_CONNECTION_WITHIN = 20.0  # seconds


def job_key(job_id: str) -> str:
    return f"dray:job:{job_id}"


def log_key(job_id: str) -> str:
    return f"dray:job:{job_id}:log"


def cursors_key(job_id: str) -> str:
    return f"dray:job:{job_id}:log:cursors"


def output_key(job_id: str) -> str:
    return f"dray:job:{job_id}:output"


_CREATE = """
local job, sequence, jobs, waiting = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, spec, state, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('EXISTS', job) == 1 then return 0 end
local number = redis.call('INCR', sequence)
redis.call('HSET', job, 'spec', spec, 'state', state, 'version', 0, 'sequence', number)
redis.call('ZADD', jobs, number, id)
redis.call('ZADD', waiting, number, id)
redis.call('PUBLISH', channel, id)
return 1
"""

_SAVE = """
local job, waiting, active = KEYS[1], KEYS[2], KEYS[3]
local id, version, state = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', job, 'version') ~= version then return 0 end
redis.call('HSET', job, 'state', state)
redis.call('HINCRBY', job, 'version', 1)
if redis.call('ZREM', waiting, id) == 1 then redis.call('ZADD', active, redis.call('HGET', job, 'sequence'), id) end
return 1
"""

_RETIRE = """
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""

_DOOM = """
local job, jobs, waiting, active = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, channel = ARGV[1], ARGV[2]
local sequence = redis.call('HGET', job, 'sequence')
if not sequence or redis.call('HEXISTS', job, 'doomed') == 1 then return 0 end
redis.call('HSET', job, 'doomed', 1)
redis.call('HINCRBY', job, 'version', 1)
redis.call('ZREM', jobs, id)
redis.call('ZREM', waiting, id)
redis.call('ZADD', active, sequence, id)
redis.call('PUBLISH', channel, id)
return 1
"""

_APPEND = """
local job, log, cursors = KEYS[1], KEYS[2], KEYS[3]
local attempt, start, finish, lines, payload = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
if redis.call('EXISTS', job) == 0 then return 0 end
local at = redis.call('HGET', cursors, attempt) or '0:0'
if at == finish then return 1 end
if at ~= start then return 0 end
local first = redis.call('HINCRBY', cursors, 'lines', lines) - lines
redis.call('XADD', log, '0-' .. (first + 1), 'attempt', attempt, 'blocks', payload)
redis.call('HSET', cursors, attempt, finish)
return 1
"""

_READ_LOG = """
local job, log, cursors = KEYS[1], KEYS[2], KEYS[3]
local index, count = tonumber(ARGV[1]), ARGV[2]
if redis.call('EXISTS', job) == 0 or redis.call('HEXISTS', job, 'doomed') == 1 then return false end
local total = tonumber(redis.call('HGET', cursors, 'lines') or 0)
if index < 0 then index = math.max(total + index, 0) end
if index >= total then return {index, {}} end
local at = redis.call('XREVRANGE', log, '0-' .. string.format('%.0f', index + 1), '-', 'COUNT', 1)
return {index, redis.call('XRANGE', log, at[1][1], '+', 'COUNT', count)}
"""

P = ParamSpec("P")
R = TypeVar("R")
Entry = tuple[int, bytes]


@contextmanager
def _answering() -> Iterator[None]:
    """Redis errors as Unavailable: not reachable, full, read-only, loading: each passes, none says anything of a job."""
    try:
        yield
    except RedisError as error:
        raise Unavailable(f"Redis: {error}") from error


def _available(call: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    @wraps(call)
    async def answering(*args: P.args, **kwargs: P.kwargs) -> R:
        with _answering():
            return await call(*args, **kwargs)

    return answering


class Store:
    """Jobs, their logs and small outputs. Every call raises Unavailable when Redis does not do what it is asked."""

    def __init__(self, url: str) -> None:
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2, supported_errors=(RedisConnectionError, RedisTimeoutError))
        pool = redis.BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=_CONNECTION_WITHIN, retry=retry, socket_timeout=10, socket_connect_timeout=5
        )
        # Any: the client's own types cover its synchronous twin too, and so say nothing.
        self._redis: Any = redis.Redis.from_pool(pool)
        self._create = self._redis.register_script(_CREATE)
        self._save = self._redis.register_script(_SAVE)
        self._retire = self._redis.register_script(_RETIRE)
        self._doom = self._redis.register_script(_DOOM)
        self._append = self._redis.register_script(_APPEND)
        self._read_log = self._redis.register_script(_READ_LOG)

    async def close(self) -> None:
        await self._redis.aclose()

    @_available
    async def ping(self) -> None:
        await self._redis.ping()

    @_available
    async def instance(self) -> str:
        """A name for this Redis, made at first use."""
        await self._redis.set(INSTANCE, secrets.token_hex(6), nx=True)
        return str((await self._redis.get(INSTANCE)).decode())

    @_available
    async def weaknesses(self) -> list[str]:
        """Settings of this Redis with which a promise may be broken, each in words; none known where it does not tell its settings."""
        wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction"}
        try:
            found = await self._redis.config_get(*wanted)
        except ResponseError:
            return []
        return [f"{name} is {found[name]}, not {value}" for name, value in wanted.items() if found.get(name) not in (None, value)]

    # --- records

    @_available
    async def create(self, job: Job) -> None:
        """Record a new job: in the list, waiting, and woken for. Again with the same id: nothing more."""
        spec = job.spec.model_dump_json(exclude_unset=True)
        await self._create(keys=[job_key(job.id), SEQUENCE, JOBS, WAITING], args=[job.id, spec, orjson.dumps(job.dump()), WAKE])

    @_available
    async def load(self, job_id: str) -> Job | None:
        """The record, also a doomed one; None: there is none."""
        spec, state, version, doomed = await self._redis.hmget(job_key(job_id), "spec", "state", "version", "doomed")
        if state is None:
            return None
        return Job.load(job_id, JobSpec.model_validate_json(spec), orjson.loads(state), int(version), doomed is not None)

    async def get(self, job_id: str) -> Job:
        """The record as clients may see it. Raises NotFound."""
        job = await self.load(job_id)
        if job is None or job.doomed:
            raise _unknown(job_id)
        return job

    @_available
    async def save(self, job: Job) -> Job:
        """Record a job that begins, goes on or ends; the record's new version. Raises Stale when it changed since it was read."""
        if not await self._save(keys=[job_key(job.id), WAITING, ACTIVE], args=[job.id, job.version, orjson.dumps(job.dump())]):
            raise Stale(job.id)
        return replace(job, version=job.version + 1)

    @_available
    async def doom(self, job_id: str) -> None:
        """Delete a job for its clients; the operator removes the rest. Raises NotFound."""
        if not await self._doom(keys=[job_key(job_id), JOBS, WAITING, ACTIVE], args=[job_id, WAKE]):
            raise _unknown(job_id)

    @_available
    async def retire(self, job: Job) -> None:
        """Nothing is left to do for this job. Raises Stale when it changed since it was read: it may be doomed."""
        if not await self._retire(keys=[job_key(job.id), ACTIVE], args=[job.id, job.version]):
            raise Stale(job.id)

    @_available
    async def forget(self, job_id: str) -> None:
        """Remove everything of a doomed job."""
        await self._redis.unlink(log_key(job_id), cursors_key(job_id), output_key(job_id), job_key(job_id))
        await self._redis.zrem(ACTIVE, job_id)

    async def ids(self) -> AsyncIterator[list[str]]:
        """Every job's id, oldest first, page by page."""
        after = "-inf"
        while page := await self._page(after):
            yield [job_id.decode() for job_id, _ in page]
            after = f"({page[-1][1]:.0f}"

    @_available
    async def _page(self, after: str) -> list[tuple[bytes, float]]:
        page: list[tuple[bytes, float]] = await self._redis.zrangebyscore(JOBS, after, "+inf", start=0, num=_PAGE, withscores=True)
        return page

    # --- what the operator works on

    @_available
    async def active(self) -> list[str]:
        """Jobs that need an operator, oldest first."""
        return [job_id.decode() for job_id in await self._redis.zrange(ACTIVE, 0, -1)]

    @_available
    async def waiting(self, count: int) -> list[str]:
        """The next jobs to begin, first come first."""
        return [job_id.decode() for job_id in await self._redis.zrange(WAITING, 0, count - 1)] if count else []

    async def wakes(self) -> AsyncIterator[str | None]:
        """Ids of jobs to look at, as they change; None when listening has begun, and every second without one."""
        with _answering():
            async with self._redis.pubsub() as listener:
                await listener.subscribe(WAKE)
                while True:
                    message = await listener.get_message(timeout=1.0)
                    if message is None or message["type"] == "subscribe":
                        yield None
                    elif message["type"] == "message":
                        yield message["data"].decode()

    # --- logs

    @_available
    async def cursors(self, job_id: str) -> dict[tuple[int, int], Cursor]:
        """How far each attempt's log is kept."""
        found = await self._redis.hgetall(cursors_key(job_id))
        return {_attempt(name): Cursor.load(text.decode()) for name, text in found.items() if name != b"lines"}

    @_available
    async def append(self, job_id: str, key: tuple[int, int], chunk: Chunk) -> None:
        """Keep a chunk of the log of attempt `key` = (step, attempt). Raises Stale when it does not follow on what is kept."""
        args: list[Any] = ["{}.{}".format(*key), chunk.start.dump(), chunk.end.dump(), chunk.lines, chunk.payload]
        if not await self._append(keys=[job_key(job_id), log_key(job_id), cursors_key(job_id)], args=args):
            raise Stale(job_id)

    async def log(self, job_id: str, index: int, page: int = 64) -> AsyncIterator[Entry]:
        """Chunks of the log as (number of the chunk's first line, blocks), from the one that holds line `index` on.

        A negative index counts from the end. What is yielded first is (index resolved, b""). Raises NotFound.
        """
        found = await self._first_entries(job_id, index, page)
        if found is None:
            raise _unknown(job_id)
        start, entries = found
        yield int(start), b""
        while entries:
            for entry_id, values in entries:
                yield int(entry_id.split(b"-")[1]) - 1, values[values.index(b"blocks") + 1] if isinstance(values, list) else values[b"blocks"]
            entries = await self._next_entries(job_id, entries[-1][0], page) if len(entries) == page else []

    @_available
    async def _first_entries(self, job_id: str, index: int, page: int) -> Any:
        bounded = max(min(index, 2**53), -(2**53))  # a Lua number
        return await self._read_log(keys=[job_key(job_id), log_key(job_id), cursors_key(job_id)], args=[bounded, page])

    @_available
    async def _next_entries(self, job_id: str, after: bytes, page: int) -> Any:
        return await self._redis.xrange(log_key(job_id), b"(" + after, "+", count=page)

    # --- small outputs

    @_available
    async def keep_output(self, job_id: str, output: bytes) -> None:
        await self._redis.set(output_key(job_id), output)

    @_available
    async def small_output(self, job_id: str) -> bytes | None:
        """The kept output of at most SMALL_OUTPUT bytes; None: it is gone."""
        output: bytes | None = await self._redis.get(output_key(job_id))
        return output


def _attempt(name: bytes) -> tuple[int, int]:
    step, _, attempt = name.decode().partition(".")
    return int(step), int(attempt)


def _unknown(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id[:64]}")
