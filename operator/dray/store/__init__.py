"""Every Redis key, command and script. The API and the operators meet only here.

Keys:
    dray:instance           a name for this Redis, which the engine's labels carry: what is whose
    dray:format             2: every job is in the indexes
    dray:sequence           counts jobs
    dray:fence              counts changes of owner
    dray:jobs               zset of ids by sequence: what GET /jobs lists; and so of those with one status, name or label:
    dray:status:STATUS, dray:name:NAME, dray:label:KEY, dray:label:KEY=VALUE
    dray:finished           zset of ids by the time of their end
    dray:expiring           the same, by when their own spec has them removed, in ms
    dray:waiting            zset of ids by sequence: not yet begun, and not held; those that name no backend
    dray:waiting:BACKEND    the same, of those that name it
    dray:active:OPERATOR    zset of ids by sequence: that operator's: begun, ended but not cleaned up, or deleted but not gone
    dray:active             the same, of those that nobody owns
    dray:operators          zset of operators by the end of their lease, in ms
    dray:engines, dray:backends    hash: operator → engine, and what kind of one it is
    dray:begun, dray:adopted    hash: operator → what it was given last, should the reply be lost
    dray:job:ID             hash: spec, state (JSON), version, sequence, backend; doomed, cancelled, held: what clients told; owner,
                            engine, fence: of the lease; pod: for sweeping; brief, indexes: for the lists; ended: it has;
                            saved: nonces
    dray:job:ID:log         stream of blocks (log.py), the id of each entry `0-<number of its first line + 1>`
    dray:job:ID:log:cursors hash: STEP.ATTEMPT → log.Cursor, and `lines` → how many are kept
    dray:job:ID:outputs     hash: step → its output, where it is small; input → the job's, where that is
    dray:key:DIGEST         of an Idempotency-Key: the request's digest and the id of the job that it made
    dray:uploads            zset of ids by the end of a lease, in ms: of what lies in the output store for jobs not recorded yet
    dray:questions, dray:questions:BACKEND, dray:answer:QUESTION    lists: preflight
    dray:wake               channel: ids of jobs to look at
    dray:news               channel: ids of jobs whose log grew or whose record was saved, deleted or removed
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

from dray.store import keys
from dray.store.connection import available
from dray.store.lists import Counts, Filter, Lists, Page, Summary
from dray.store.logs import SMALL_OUTPUT, Entry, Logs, Read
from dray.store.preflight import Answer, Preflight
from dray.store.records import KEY_KEPT, IdempotencyKey, Kept, Laid, Raw, Records
from dray.store.uploads import Uploads

__all__ = ["KEY_KEPT", "SMALL_OUTPUT", "Answer", "Counts", "Entry", "Filter", "IdempotencyKey", "Kept", "Laid", "Page", "Raw", "Read", "Store", "Summary"]


class Store(Records, Uploads, Lists, Logs, Preflight):
    """Jobs, their logs and small outputs, and who works on them. Every call raises Unavailable when Redis does not do what it is asked."""

    @available
    async def instance(self) -> str:
        """A name for this Redis, made at first use."""
        await self._redis.set(keys.INSTANCE, secrets.token_hex(6), nx=True)
        return str((await self._redis.get(keys.INSTANCE)).decode())

    async def wakes(self) -> AsyncIterator[str | None]:
        """Ids of jobs to look at, as they change; None when listening has begun, and every second without one."""
        async for job_id in self._listen(keys.WAKE):
            yield job_id or None
