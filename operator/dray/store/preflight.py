"""Questions of the API that only an operator can answer: whether a job could run, and with which images."""

from __future__ import annotations

import asyncio
import secrets

import orjson

from dray.errors import FieldError, Invalid, Unavailable
from dray.settings import Runs
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
        whom = f"operator of backend {spec.backend}" if spec.backend else "operator"
        if not await self.operators(spec.backend):
            raise Unavailable(f"no {whom} is there to ask")
        question, queue = secrets.token_hex(8), keys.questions(spec.backend)
        asked = orjson.dumps([question, spec.model_dump_json(exclude_unset=True)])
        await self._ask(queue, asked)
        try:
            async with asyncio.timeout(within):
                while (raw := await self._answer(question)) is None:
                    continue
        except TimeoutError:
            await self._take_back(queue, asked)
            raise Unavailable(f"no {whom} answered within {within:.0f} seconds") from None
        return _loaded(raw)

    @available
    async def _ask(self, queue: str, asked: bytes) -> None:
        async with self._redis.pipeline() as pipe:
            pipe.rpush(queue, asked)
            pipe.expire(queue, _KEPT)
            await pipe.execute()

    @available
    async def _take_back(self, queue: str, asked: bytes) -> None:
        await self._redis.lrem(queue, 0, asked)

    @available
    async def _answer(self, question: str) -> bytes | None:
        found = await self._redis.blpop([keys.answer(question)], timeout=BLOCKING)
        return found[1] if found else None

    @available
    async def asked(self, backend: Runs = Runs.DOCKER) -> tuple[str, JobSpec] | None:
        """The next question that an operator of that backend can answer, and its job; None: there was none for a second."""
        found = await self._redis.blpop([keys.questions(None), keys.questions(backend)], timeout=BLOCKING)
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
