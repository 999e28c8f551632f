"""The connection to Redis: what it waits for, and how its failures are told."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import redis.asyncio as redis
from redis.exceptions import RedisError, ResponseError

from dray.errors import Unavailable
from dray.store.together import CONNECT, PATIENCE, REPLY, Together, patient

BLOCKING = 1.0  # seconds that a blocking command waits: less than REPLY, or its reply would never be seen
_CONNECTIONS = 64  # at most, besides the one that commands share; who finds none free waits for one

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def answering() -> Iterator[None]:
    """Redis errors as Unavailable: not reachable, full, read-only, loading: each passes, none says anything of a job."""
    try:
        yield
    except RedisError as error:
        raise Unavailable(f"Redis: {error}") from error


def available(call: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The call, raising Unavailable where Redis fails or has not answered within PATIENCE. Those of `_send` and `_run` see to it themselves."""

    @wraps(call)
    async def answered(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            async with asyncio.timeout(PATIENCE):
                return await call(*args, **kwargs)
        except RedisError as error:
            raise Unavailable(f"Redis: {error}") from error
        except TimeoutError:
            raise Unavailable(f"Redis does not answer within {PATIENCE:.0f} seconds") from None

    return answered


@cache
def _digest(script: str) -> str:
    """Redis' name for it."""
    return hashlib.sha1(script.encode()).hexdigest()  # noqa: S324


class Connection:
    """A pool of connections to one Redis. The parts of the Store are made on it."""

    def __init__(self, url: str) -> None:
        pool = redis.BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=PATIENCE, retry=patient(), socket_timeout=REPLY, socket_connect_timeout=CONNECT
        )
        # Any: the client's own types cover its synchronous twin too, and so say nothing.
        self._redis: Any = redis.Redis.from_pool(pool)
        self._together = Together(url)

    async def close(self) -> None:
        await self._together.close()
        await self._redis.aclose()

    @available
    async def ping(self) -> None:
        await self._redis.ping()

    @available
    async def weaknesses(self) -> list[str]:
        """Settings of this Redis with which a promise may be broken, each in words; none known where it does not tell its settings."""
        wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction"}
        try:
            found = await self._redis.config_get(*wanted)
        except ResponseError:
            return []
        return [f"{name} is {found[name]}, not {value}" for name, value in wanted.items() if found.get(name) not in (None, value)]

    async def _send(self, *command: Any) -> Any:
        """The reply to a command that may be sent twice. Raises Unavailable, by itself within PATIENCE."""
        try:
            return await self._together.send(*command)
        except ResponseError as error:
            raise Unavailable(f"Redis: {error}") from error

    async def _run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One round trip, as soon as Redis knows the script. Raises Unavailable, as above."""
        command = ("EVALSHA", _digest(script), len(keys), *keys, *args)
        try:
            return await self._together.send(*command)
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise Unavailable(f"Redis: {error}") from error
        await self._send("SCRIPT", "LOAD", script)
        return await self._send(*command)

    async def _listen(self, channel: str) -> AsyncGenerator[str | None]:
        """What is published there; None when listening has begun, also anew after a failure; "" every second without anything."""
        with answering():
            async with self._redis.pubsub() as listener:
                await listener.subscribe(channel)
                while True:
                    message = await listener.get_message(timeout=BLOCKING)
                    if message is None:
                        yield ""
                    elif message["type"] == "subscribe":
                        yield None
                    elif message["type"] == "message":
                        yield message["data"].decode()
