"""Many jobs in a Redis, as if they had run: copies of one that did. Nothing is known here of what a job's keys hold but its number."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

MANY = 100_000
_BATCH = 500
_SEQUENCE, _WAITING = "dray:sequence", "dray:waiting"


@dataclass(frozen=True)
class Template:
    """Of one job: dumps by what their keys add to the job's own, and its scores in sorted sets, None where that is its number."""

    dumps: Mapping[str, bytes]
    scores: Mapping[str, float | None]


def template(client: Redis, job_id: str) -> Template:
    key = _key(job_id)
    number = float(client.hget(key, "sequence") or 0)
    dumps = {found.decode().removeprefix(key): client.dump(found) or b"" for found in client.scan_iter(f"{key}*", count=10_000)}
    scores = {index: client.zscore(index, job_id) for index in _indexes(client)}
    return Template(dumps, {index: None if score == number else score for index, score in scores.items() if score is not None})


def copies(client: Redis, kept: Template, count: int) -> str:
    """So many more jobs, newer than those that are there; the last one's id."""
    first, made = int(client.incrby(_SEQUENCE, count)) - count + 1, ""
    for begin in range(0, count, _BATCH):
        pipeline = client.pipeline(transaction=False)
        for number in range(first + begin, first + min(begin + _BATCH, count)):
            made = "-".join(secrets.token_hex(length).upper() for length in (4, 2, 2, 2, 6))
            for suffix, dumped in kept.dumps.items():
                pipeline.restore(_key(made) + suffix, 0, dumped)
            pipeline.hset(_key(made), "sequence", str(number))
            for index, score in kept.scores.items():
                pipeline.zadd(index, {made: number if score is None else score})
        pipeline.execute()
    return made


def drop_waiting(client: Redis) -> None:
    """Takes away the jobs that were posted and not begun."""
    waiting: list[bytes] = client.zrange(_WAITING, 0, -1)  # type: ignore[assignment]
    indexes = _indexes(client) if waiting else []
    for begin in range(0, len(waiting), _BATCH):
        batch = waiting[begin : begin + _BATCH]
        pipeline = client.pipeline(transaction=False)
        pipeline.unlink(*(_key(job_id.decode()) for job_id in batch))
        for index in indexes:
            pipeline.zrem(index, *batch)
        pipeline.execute()


def _indexes(client: Redis) -> list[str]:
    return [key.decode() for key in client.scan_iter("dray:*", count=10_000, _type="ZSET")]


def _key(job_id: str) -> str:
    return f"dray:job:{job_id}"
