"""Lists: all jobs, those that a filter lets through, those to be removed, and how many there are of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import orjson

from dray.reason import Reason
from dray.record import FINAL, Phase
from dray.spec import JobSpec
from dray.store import keys
from dray.store.connection import Connection, available
from dray.store.records import brief
from dray.store.scripts import OVER
from dray.store.scripts import lists as scripts

_PAGE = 5000  # ids read at a time
_AT_ONCE = 50  # jobs upgraded
_LOOKED_AT = 5000  # entries of an index that one call looks at


class Filter(NamedTuple):
    """All must hold. `labels`: each `key` or `key=value`."""

    status: Phase | None = None
    name: str | None = None
    labels: tuple[str, ...] = ()


class Summary(NamedTuple):
    """What a list shows of a job."""

    id: str
    name: str
    labels: dict[str, str]
    phase: Phase
    created_at: int
    finished_at: int | None
    reason: Reason | None
    completed: int
    steps: int


class Page(NamedTuple):
    """`cursor`: where the next page begins; None: there is none."""

    jobs: list[Summary]
    cursor: int | None


class Counts(NamedTuple):
    """`waiting_since`: when the one that has waited longest was created, in microseconds."""

    by_status: dict[Phase, int]
    waiting: int
    waiting_since: int | None


class Lists(Connection):
    async def ids(self) -> AsyncIterator[list[str]]:
        """Every job's id, oldest first, page by page."""
        after = "-inf"
        while page := await self._ids(after):
            yield [job_id.decode() for job_id, _ in page]
            after = f"({page[-1][1]:.0f}"

    @available
    async def _ids(self, after: str) -> list[tuple[bytes, float]]:
        page: list[tuple[bytes, float]] = await self._redis.zrangebyscore(keys.JOBS, after, "+inf", start=0, num=_PAGE, withscores=True)
        return page

    async def page(self, wanted: Filter, cursor: int | None, limit: int, newest: bool = False) -> Page:
        """At most `limit` jobs in order of arrival, or the newest first.

        Going on from page to page shows no job twice, and misses none that is there all the time. The last page may be empty.
        """
        indexes = _indexes(wanted)
        found: list[Summary] = []
        at: Any = "" if cursor is None else cursor
        while at is not None and len(found) < limit:
            at, entries = await self._entries(indexes, [at, int(newest), limit - len(found), _LOOKED_AT, keys.job("")])
            found += [_summary(*entry) for entry in entries]
        return Page(found, None if at is None else int(at))

    async def _entries(self, indexes: list[str], args: list[Any]) -> Any:
        return await self._run(scripts.PAGE, indexes, args)

    async def outdated(self, keep_time: float | None, keep_jobs: int | None, count: int) -> list[str]:
        """At most `count` jobs that ended longer ago than `keep_time` seconds or before the last `keep_jobs`, the first ended first."""
        limits = [-1 if limit is None else limit for limit in (keep_time, keep_jobs)]
        return [job_id.decode() for job_id in await self._run(scripts.OUTDATED, [keys.FINISHED], [*limits, count])]

    async def expired(self, count: int) -> list[str]:
        """At most `count` jobs that ended longer ago than they themselves asked to be kept."""
        return [job_id.decode() for job_id in await self._run(OVER, [keys.EXPIRING], [count])]

    async def counts(self) -> Counts:
        phases = [phase for phase in Phase if phase is not Phase.WAITING]
        known, args = [*keys.QUEUES, *map(keys.status, phases)], [keys.job(""), len(keys.QUEUES)]
        *sizes, waiting, state = await self._run(scripts.COUNTS, known, args)
        return Counts(dict(zip(phases, sizes, strict=True)), waiting, orjson.loads(state)["created_at"] if state else None)

    async def upgrade(self) -> None:
        """Put the jobs of a version that knew no filters where they can be found. Once, and quick where there is nothing to do."""
        if await self._format() >= 2:
            return
        async for page in self.ids():
            for start in range(0, len(page), _AT_ONCE):
                await asyncio.gather(*(self._upgrade(job_id) for job_id in page[start : start + _AT_ONCE]))
        await self._set_format()

    @available
    async def _format(self) -> int:
        return int(await self._redis.get(keys.FORMAT) or 0)

    @available
    async def _set_format(self) -> None:
        await self._redis.set(keys.FORMAT, 2)

    @available
    async def _upgrade(self, job_id: str) -> None:
        spec, raw, known = await self._redis.hmget(keys.job(job_id), "spec", "state", "indexes")
        if raw is None or known is not None:
            return
        wanted, state = JobSpec.model_validate_json(spec), orjson.loads(raw)
        phase = Phase(state["phase"])
        ended = state["finished_at"] or state["created_at"] if phase in FINAL else ""
        indexes = orjson.dumps(tuple(keys.indexes(wanted)))
        await self._run(scripts.UPGRADE, [keys.job(job_id), keys.JOBS, keys.status(phase), keys.FINISHED], [job_id, brief(wanted), indexes, ended])


def _indexes(wanted: Filter) -> list[str]:
    found = [keys.label(text) for text in wanted.labels]
    if wanted.name is not None:
        found.append(keys.name(wanted.name))
    if wanted.status is not None:
        found.append(keys.status(wanted.status))
    return found or [keys.JOBS]


def _summary(job_id: bytes, kept: bytes, raw: bytes) -> Summary:
    name, labels = orjson.loads(kept)
    state = orjson.loads(raw)
    steps = [Phase(step[0]) for step in state["steps"]]
    reason = Reason(state["reason"]) if state["reason"] else None
    return Summary(
        job_id.decode(),
        name,
        labels,
        Phase(state["phase"]),
        state["created_at"],
        state["finished_at"],
        reason,
        steps.count(Phase.COMPLETE),
        len(steps),
    )
