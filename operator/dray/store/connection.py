"""The connection to Redis: what it waits for, and how its failures are told."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from dray.errors import Unavailable

PATIENCE = 8.0  # seconds for one call, with all that the client does again
BLOCKING = 1.0  # seconds that a blocking command waits: less than _REPLY, or its reply would never be seen
_REPLY = 3.0  # seconds for one reply
_CONNECT = 3.0
_CONNECTIONS = 64  # at most; who finds none free waits for one

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
    """The call, raising Unavailable where Redis fails or has not answered within PATIENCE."""

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


class _Together:
    """Commands that are sent in the same turn of the loop go to Redis in one piece: most of the cost is in the piece."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._gathered: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, *command: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._gathered.append((command, answer))
        if len(self._gathered) == 1:
            loop.call_soon(self._go)
        return answer

    def _go(self) -> None:
        gathered, self._gathered = self._gathered, []
        task = asyncio.create_task(self._exchange(gathered))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _exchange(self, gathered: list[tuple[tuple[Any, ...], asyncio.Future[Any]]]) -> None:
        try:
            found = await self._answers([command for command, _ in gathered])
        except RedisError as error:
            found = [error] * len(gathered)
        for (_, answer), result in zip(gathered, found, strict=True):
            if not answer.done():
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

    async def _answers(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        if len(commands) == 1:
            return [await self._client.execute_command(*commands[0])]
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        found: list[Any] = await pipe.execute(raise_on_error=False)
        return found


class Connection:
    """A pool of connections to one Redis. The parts of the Store are made on it."""

    def __init__(self, url: str) -> None:
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2, supported_errors=(RedisConnectionError, RedisTimeoutError))
        pool = redis.BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=PATIENCE, retry=retry, socket_timeout=_REPLY, socket_connect_timeout=_CONNECT
        )
        # Any: the client's own types cover its synchronous twin too, and so say nothing.
        self._redis: Any = redis.Redis.from_pool(pool)
        self._together = _Together(self._redis)

    async def close(self) -> None:
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

    async def _run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One round trip, as soon as Redis knows the script."""
        command = ("EVALSHA", _digest(script), len(keys), *keys, *args)
        try:
            return await self._together.send(*command)
        except NoScriptError:
            await self._redis.script_load(script)
            return await self._together.send(*command)

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
