"""Dray's JSON: jobs, their list and their logs as clients see them. No I/O but the store's."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from dray.errors import FieldError, Invalid
from dray.log import lines
from dray.spec import EnvVar, JobSpec, Step
from dray.state import FINAL, Job, Phase, StepState
from dray.store import Store

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOG_PAGE = 16  # chunks of a log read at a time, each of about a MiB at most
_FAR = 2**60  # an index further than any line


def new_id() -> str:
    digits = secrets.token_hex(16).upper()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def may_be_id(text: str) -> bool:
    """Whether a job could be called so. What could not is no part of a Redis key: `X:log` would name another key."""
    return len(text) <= 64 and re.fullmatch(r"[0-9A-Za-z-]+", text) is not None


# --- a job as posted


def posted(job_id: str, spec: JobSpec) -> dict[str, Any]:
    """The job as it was posted, with its id before all; what is empty is left out."""
    fields = {"name": spec.name, "steps": [_posted_step(step) for step in spec.steps], "environment": _variables(spec.environment)}
    return {"id": job_id, **_given(fields)}


def _posted_step(step: Step) -> dict[str, Any]:
    fields = {
        "name": step.name,
        "source": step.source,
        "environment": _variables(step.environment),
        "output": step.output if "output" in step.model_fields_set else "",
        "beginDelimiter": step.beginDelimiter,
        "endDelimiter": step.endDelimiter,
        "refresh": step.refresh,
    }
    return _given(fields)


def _variables(environment: tuple[EnvVar, ...]) -> list[dict[str, str]]:
    return [{"variable": var.variable, "value": var.value} for var in environment]


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


# --- how far a job is


def record(job: Job) -> dict[str, Any]:
    """The README's fields, then ours. No environment: its values may be secrets."""
    seen: dict[str, Any] = {
        "id": job.id,
        "stepsCompleted": sum(state.phase is Phase.COMPLETE for state in job.steps),
        "status": job.phase if job.phase in FINAL else Phase.RUNNING,
        "createdAt": go_time(job.created_at),
    }
    if job.finished_at is not None:
        seen["finishedIn"] = max(job.finished_at - job.created_at, 0) / 1e6
    seen |= {"name": job.spec.name, "startedAt": rfc3339(job.started_at), "finishedAt": rfc3339(job.finished_at)}
    if job.phase is Phase.ERROR:
        seen |= {"reason": job.reason, "message": job.message}
    seen["steps"] = [_step(step, state) for step, state in zip(job.spec.steps, job.steps, strict=True)]
    return seen


def _step(step: Step, state: StepState) -> dict[str, Any]:
    return {
        "name": step.name,
        "source": step.source,
        "state": state.phase,
        "attempt": state.attempt,
        "exitCode": state.exit_code,
        "startedAt": rfc3339(state.started_at),
        "finishedAt": rfc3339(state.finished_at),
        "bytesIn": state.bytes_in,
        "bytesOut": state.bytes_out,
    }


def go_time(microseconds: int) -> str:
    """As Go's Time.String() has it: the fraction without its trailing zeros."""
    time = _EPOCH + timedelta(microseconds=microseconds)
    fraction = f".{time.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{time:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"


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
    """`{"lines":[…]}`, a chunk at a time. Raises NotFound."""
    chunks = store.log(job_id, index, min(_LOG_PAGE, limit or _LOG_PAGE))
    start, _ = await anext(chunks)
    end = start + (limit or _FAR)
    opening, taken = b'{"lines":[', 0
    async for number, chunk in chunks:
        found = _within(chunk, start - number, end - number)
        if found:
            yield opening + orjson.dumps(texts(found))[1:-1]
            opening = b","
        taken += len(found)
        if taken == limit:
            break
    yield b'{"lines":[]}' if opening != b"," else b"]}"


def _within(chunk: bytes, first: int, last: int) -> list[bytes]:
    """The chunk's lines from the one numbered `first` in it to before `last`."""
    found: list[bytes] = []
    for _, block in lines(chunk):
        found += block[max(first, 0) : max(last, 0)]
        first, last = first - len(block), last - len(block)
        if last <= 0:
            break
    return found


def texts(found: list[bytes]) -> list[str]:
    """At least one line, decoded; what is not UTF-8 becomes U+FFFD. All at once: a newline ends any sequence cut short, as a line's end does."""
    return b"\n".join(found).decode(errors="replace").split("\n")


def index_of(text: str | None) -> int:
    """The line that `?index=` names. What is no whole number is 0, as the original has it."""
    found = re.fullmatch(r"([+-]?)0*([0-9]+)", text or "")
    if found is None:
        return 0
    size = int(found[2]) if len(found[2]) <= 18 else _FAR
    return -size if found[1] == "-" else size


def limit_of(text: str | None) -> int | None:
    """How many lines `?limit=` asks for; None: all. Raises Invalid."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]+", text) or not text.strip("0"):
        raise Invalid([FieldError("limit", "must be a whole number of at least 1")])
    return index_of(text)
