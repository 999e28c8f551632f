"""Dray's JSON: jobs, summaries of them and their logs as clients see them. No I/O but the store's."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from dray.clock import SECOND
from dray.log import cut
from dray.reason import MEANINGS
from dray.record import FINAL, Job, Past, Phase
from dray.spec import JobSpec
from dray.store import Raw, Store, Summary

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOG_PAGE = 32  # entries of a log read at a time
_REMEMBERED = 8 * 2**10  # bytes of a record whose JSON is remembered
_FAR = 2**53  # lines: more than any log has


def new_id() -> str:
    digits = secrets.token_hex(16).upper()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def may_be_id(text: str) -> bool:
    """Whether a job could be called so. What could not is no part of a Redis key: `X:log` would name another key."""
    return len(text) <= 64 and re.fullmatch(r"[0-9A-Za-z-]+", text) is not None


# --- a job as posted


def posted(job_id: str, spec: JobSpec) -> dict[str, Any]:
    """The job as it was posted, with its id before all; what is empty is left out."""
    found = spec.model_dump(exclude_unset=True)
    found["steps"] = [_given(step) for step in found["steps"]]
    return {"id": job_id, **_given(found)}


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value or name == "ttlSecondsAfterFinished"}


# --- how far a job is


def record(job: Job) -> dict[str, Any]:
    """The README's fields, then ours. No environment: its values may be secrets."""
    ended = job.phase in FINAL
    completed = sum(state.phase is Phase.COMPLETE for state in job.steps)
    seen = {"id": job.id, "stepsCompleted": completed, "status": _status(job.phase), "createdAt": go_time(job.created_at)}
    if job.finished_at is not None:
        seen["finishedIn"] = _seconds(job.created_at, job.finished_at)
    seen |= {"name": job.spec.name, "startedAt": rfc3339(job.started_at), "finishedAt": rfc3339(job.finished_at), "labels": job.spec.labels}
    seen |= _reason(job)
    if job.told.cancelled and not ended:
        seen["cancelRequested"] = True
    if job.told.held and not ended:
        seen["held"] = True
    if job.origin is not None:
        seen["rerunOf"] = job.origin
    pipe = job.spec.pipe
    return seen | {"steps": [_step(job, number, number < pipe) for number in range(len(job.steps))]}


def shown(job_id: str, raw: Raw) -> bytes:
    """The same as JSON. Who polls a job mostly gets what was got before."""
    size = len(raw.spec) + len(raw.state)
    return _remembered(job_id, raw) if size <= _REMEMBERED else _shown(job_id, raw)


def _shown(job_id: str, raw: Raw) -> bytes:
    return orjson.dumps(record(raw.job(job_id)))


_remembered = lru_cache(1024)(_shown)


def _reason(job: Job) -> dict[str, Any]:
    if job.reason is None:
        return {}
    meaning = MEANINGS[job.reason]
    found = {"reason": job.reason, "fault": meaning.side, "retryable": meaning.again, "message": job.message, "stderr": job.stderr}
    return found if job.failed is None else found | {"failedStep": job.failed + 1}


def _step(job: Job, number: int, piped: bool) -> dict[str, Any]:
    step, state = job.spec.steps[number], job.steps[number]
    has_read = piped and state.bytes_in is not None
    seen = {
        "name": step.name,
        "source": step.source,
        "state": state.phase,
        "attempt": state.attempt,
        "exitCode": state.exit_code,
        "startedAt": rfc3339(state.started_at),
        "finishedAt": rfc3339(state.finished_at),
        "bytesIn": state.bytes_in,
        "bytesOut": state.bytes_out,
        "sha256In": (_sha256_in(job, number) or None) if has_read else None,
        "sha256Out": state.sha256 or None,
        "always": step.always,
        "attempts": [_past(past) for past in state.past],
    }
    if state.retry_at is not None and state.phase is Phase.WAITING:
        seen["retryAt"] = rfc3339(state.retry_at)
    if job.pins:
        seen["image"] = job.pins[number]
    return seen


def _sha256_in(job: Job, number: int) -> str:
    if number == 0:
        return job.input.sha256 if job.input else ""
    return job.steps[number - 1].sha256


def _past(past: Past) -> dict[str, Any]:
    return {
        "attempt": past.attempt,
        "reason": past.reason,
        "exitCode": past.exit_code,
        "startedAt": rfc3339(past.started_at),
        "finishedAt": rfc3339(past.finished_at),
    }


def summary(job: Summary) -> dict[str, Any]:
    """A job in a list that was asked for with a filter or a limit."""
    seen: dict[str, Any] = {"id": job.id, "name": job.name, "status": _status(job.phase), "createdAt": go_time(job.created_at)}
    if job.finished_at is not None:
        seen["finishedIn"] = _seconds(job.created_at, job.finished_at)
    if job.reason is not None:
        seen["reason"] = job.reason
    return seen | {"stepsCompleted": job.completed, "steps": job.steps, "labels": job.labels}


def _status(phase: Phase) -> Phase:
    return phase if phase in FINAL else Phase.RUNNING


def _seconds(begin: int, end: int) -> float:
    """A clock set back makes no negative time."""
    return max(end - begin, 0) / SECOND


def go_time(microseconds: int) -> str:
    """As Go's Time.String() has it: the fraction without its trailing zeros."""
    time = _EPOCH + timedelta(microseconds=microseconds)
    fraction = f".{time.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{time.isoformat(' ')[:19]}{fraction} +0000 UTC"


def rfc3339(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")


# --- lists, in pieces


async def listing(store: Store) -> AsyncIterator[bytes]:
    """`[{"id":…},…]`, oldest first, a page at a time."""
    opening = b"["
    async for page in store.ids():
        yield opening + orjson.dumps([{"id": job_id} for job_id in page])[1:-1]
        opening = b","
    yield b"[]" if opening == b"[" else b"]"


async def log(store: Store, job_id: str, index: int, limit: int | None) -> AsyncIterator[bytes]:
    """`{"lines":[…]}`, an entry at a time. Raises NotFound."""
    lines = limit or _FAR
    entries = store.log(job_id, index, LOG_PAGE, lines)
    start = (await anext(entries)).first
    opening = b'{"lines":['
    async for number, _, blocks in entries:
        found = cut(blocks, start - number, start - number + lines)
        if found:
            yield opening + orjson.dumps(texts(found))[1:-1]
            opening = b","
    yield b'{"lines":[]}' if opening != b"," else b"]}"


async def few_lines(store: Store, job_id: str, index: int, limit: int) -> bytes:
    """The same of at most LOG_PAGE lines, at once: no more entries hold them. Raises NotFound."""
    read = await store.read(job_id, index, LOG_PAGE, limit)
    found: list[bytes] = []
    for number, _, blocks in read.entries:
        found += cut(blocks, read.start - number, read.start - number + limit)
    return orjson.dumps({"lines": texts(found) if found else []})


def texts(found: list[bytes]) -> list[str]:
    """At least one line, decoded; what is not UTF-8 becomes U+FFFD. All at once: a newline ends any sequence cut short, as a line's end does."""
    return b"\n".join(found).decode(errors="replace").split("\n")
