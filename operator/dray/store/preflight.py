"""Questions of the API that only an operator can answer: whether a job could run, and with which images."""

from __future__ import annotations

import asyncio
import secrets

import orjson

from dray.errors import FieldError, Invalid, Unavailable
from dray.spec import JobSpec
from dray.store import keys
from dray.store.connection import BLOCKING, available
from dray.store.leases import Leases

Answer = tuple[str, ...] | Invalid | Unavailable
"""By step, the image's digest to run instead of its source; or why not."""

_KEPT = 60  # seconds: questions that nobody took, answers that nobody waits for


class Preflight(Leases):
    async def preflight(self, spec: JobSpec, within: float) -> tuple[str, ...]:
        """An operator's answer. Raises Invalid, as it has found the job; Unavailable where none answers in time."""
        if not await self.operators():
            raise Unavailable("no operator is there to ask")
        question = secrets.token_hex(8)
        asked = orjson.dumps([question, spec.model_dump_json(exclude_unset=True)])
        await self._ask(asked)
        try:
            async with asyncio.timeout(within):
                while (raw := await self._answer(question)) is None:
                    continue
        except TimeoutError:
            await self._take_back(asked)
            raise Unavailable(f"no operator answered within {within:.0f} seconds") from None
        return _loaded(raw)

    @available
    async def _ask(self, asked: bytes) -> None:
        async with self._redis.pipeline() as pipe:
            pipe.rpush(keys.QUESTIONS, asked)
            pipe.expire(keys.QUESTIONS, _KEPT)
            await pipe.execute()

    @available
    async def _take_back(self, asked: bytes) -> None:
        await self._redis.lrem(keys.QUESTIONS, 0, asked)

    @available
    async def _answer(self, question: str) -> bytes | None:
        found = await self._redis.blpop([keys.answer(question)], timeout=BLOCKING)
        return found[1] if found else None

    @available
    async def asked(self) -> tuple[str, JobSpec] | None:
        """The next question and its job; None: there was none for a second."""
        found = await self._redis.blpop([keys.QUESTIONS], timeout=BLOCKING)
        if found is None:
            return None
        question, spec = orjson.loads(found[1])
        return question, JobSpec.model_validate_json(spec)

    @available
    async def answer(self, question: str, result: Answer) -> None:
        async with self._redis.pipeline() as pipe:
            pipe.rpush(keys.answer(question), _dumped(result))
            pipe.expire(keys.answer(question), _KEPT)
            await pipe.execute()


def _dumped(result: Answer) -> bytes:
    match result:
        case Invalid():
            return orjson.dumps({"errors": [[error.field, error.message] for error in result.errors]})
        case Unavailable():
            return orjson.dumps({"unavailable": str(result)})
        case pins:
            return orjson.dumps({"pins": pins})


def _loaded(raw: bytes) -> tuple[str, ...]:
    found = orjson.loads(raw)
    if "errors" in found:
        raise Invalid([FieldError(*error) for error in found["errors"]])
    if "unavailable" in found:
        raise Unavailable(found["unavailable"])
    return tuple(found["pins"])
