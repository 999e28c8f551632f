"""Many jobs in a Redis, as if they had run: copies of one that did."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from redis import Redis

from dray.store import JOBS, SEQUENCE, WAITING, job_key

MANY = 100_000
_BATCH = 500


def template(client: Redis, job_id: str) -> Mapping[str, bytes]:
    """All that is kept of a job, by what its keys add to the job's own."""
    key = job_key(job_id)
    return {found.decode().removeprefix(key): client.dump(found) or b"" for found in client.scan_iter(f"{key}*", count=10_000)}


def copies(client: Redis, kept: Mapping[str, bytes], count: int) -> str:
    """So many more jobs, newer than those that are there; the last one's id."""
    first, made = int(client.incrby(SEQUENCE, count)) - count + 1, ""
    for begin in range(0, count, _BATCH):
        pipeline = client.pipeline(transaction=False)
        for number in range(first + begin, first + min(begin + _BATCH, count)):
            made = "-".join(secrets.token_hex(4).upper() for _ in range(4))
            for suffix, dumped in kept.items():
                pipeline.restore(job_key(made) + suffix, 0, dumped)
            pipeline.hset(job_key(made), "sequence", str(number))
            pipeline.zadd(JOBS, {made: number})
        pipeline.execute()
    return made


def drop_waiting(client: Redis) -> None:
    """Takes away the jobs that were posted and not begun."""
    waiting: list[bytes] = client.zrange(WAITING, 0, -1)  # type: ignore[assignment]
    for begin in range(0, len(waiting), _BATCH):
        batch = waiting[begin : begin + _BATCH]
        pipeline = client.pipeline(transaction=False)
        pipeline.unlink(*(job_key(job_id.decode()) for job_id in batch))
        pipeline.zrem(JOBS, *batch)
        pipeline.zrem(WAITING, *batch)
        pipeline.execute()
