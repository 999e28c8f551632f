"""What the tests of the store share: an empty Redis, jobs, chunks, and an operator that has begun."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from dray.log import Block, Chunk, Cursor, lines
from dray.record import Job, Phase, new_job
from dray.spec import parse
from dray.store import Store
from kit.api import with_store
from kit.redis import RedisServer

ATTEMPT = (0, 1)
NOON = 1_465_575_323_794_364


def on_redis(test: Callable[[Store, RedisServer], Awaitable[None]]) -> Callable[[RedisServer], None]:
    """The test with a store on an empty Redis."""

    def tested(redis_server: RedisServer) -> None:
        redis_server.flush()
        with_store(redis_server.url, lambda store: test(store, redis_server))

    tested.__doc__ = test.__doc__
    return tested


def a_job(job_id: str, steps: int = 1, **given: Any) -> Job:
    return new_job(job_id, parse({"name": "ä", "steps": [{"source": "a", "output": "stdout"}] * steps} | given), NOON)


def ended(job: Job, phase: Phase = Phase.COMPLETE, at: int = 2) -> Job:
    return replace(job, phase=phase, finished_at=NOON + at)


def a_chunk(start: int, *found: bytes, stream: int = 1) -> Chunk:
    """Lines in one block; in the log file it begins at byte `start`."""
    payload = Block(len(found), 7, stream, b"".join(line + b"\n" for line in found)).dump()
    return Chunk(Cursor(start), Cursor(start + len(payload)), len(found), payload)


async def begun(store: Store, *names: str, operator: str = "me", engine: str = "e") -> list[Job]:
    """New jobs that the operator has begun; no other may wait."""
    await store.enlist(operator, engine, 60)
    for name in names:
        await store.create(a_job(name))
    found = []
    for name in names:
        assert await store.begin(operator, engine) == name
        found.append(await store.save(replace(await store.get(name), phase=Phase.RUNNING, started_at=1)))
    return found


async def waiting(store: Store) -> list[str]:
    """In order, as operators will find them; they are begun by it."""
    await store.enlist("counting", "none", 60)
    found = []
    while (job_id := await store.begin("counting", "none")) is not None:
        found.append(job_id)
    return found


async def ids(store: Store) -> list[str]:
    return [job_id async for page in store.ids() for job_id in page]


async def log_of(store: Store, job_id: str, index: int = 0, page: int = 64) -> list[bytes]:
    """All lines from the index on, as a reader cuts them out."""
    entries = store.log(job_id, index, page)
    start = (await anext(entries)).first
    return [line async for first, _, blocks in entries for line in [line for _, found in lines(blocks) for line in found][max(start - first, 0) :]]


def keys(server: RedisServer) -> set[str]:
    with server.client() as client:
        found: Any = client.keys("*")
        return {key.decode() for key in found}
