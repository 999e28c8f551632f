"""The store's own way to Redis: one connection for all, on which no command waits for another's reply.

Those of one turn of the loop go out in one piece, since most of what a command costs is in the piece. The client library
connects; from then on the bytes are read here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import redis.asyncio as redis
from hiredis import Reader, pack_command
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from dray.errors import Unavailable

PATIENCE = 8.0  # seconds for one call, with all that is done again
REPLY = 3.0  # seconds without any reply, after which the connection is given up
CONNECT = 3.0
_TRIES = 3
_LOOK = 0.25  # seconds between two looks at what has not been answered
_NOT_YET = object()


def patient() -> Retry:
    """Three tries, a moment apart, where the connection fails or no reply comes."""
    return Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=_TRIES - 1, supported_errors=(RedisConnectionError, RedisTimeoutError))


class _Asked:
    """A command, and where its reply goes."""

    __slots__ = ("answer", "command", "since", "tries")

    def __init__(self, command: bytes, answer: asyncio.Future[Any], since: float) -> None:
        self.command, self.answer, self.since = command, answer, since
        self.tries = 0

    def fail(self, words: object) -> None:
        if not self.answer.done():
            self.answer.set_exception(Unavailable(f"Redis: {words}"))


class Together:
    """For commands that may be sent again when a reply was lost, and that Redis does not wait in."""

    def __init__(self, url: str) -> None:
        # Any: the client's own types cover its synchronous twin too, and so say nothing.
        pool: Any = redis.ConnectionPool.from_url(url, retry=patient(), socket_timeout=REPLY, socket_connect_timeout=CONNECT, protocol=2)
        self._connection = pool.make_connection()
        self._line: _Line | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._gathered: list[_Asked] = []
        self._looking: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._line is not None:
            self._line.lost = lambda _: None
        await self._connection.disconnect(nowait=True)

    def send(self, *command: Any) -> asyncio.Future[Any]:
        """The reply. Raises ResponseError where Redis refuses the command, Unavailable where none comes."""
        loop = asyncio.get_running_loop()
        asked = _Asked(pack_command(command), loop.create_future(), loop.time())
        self._gathered.append(asked)
        if len(self._gathered) == 1:
            loop.call_soon(self._go)
        return asked.answer

    def _go(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look)
        if self._line is not None:
            gathered, self._gathered = self._gathered, []
            self._line.send(gathered)
        elif self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._connection.disconnect(nowait=True)
            await self._connection.connect()
            transport = self._connection._writer.transport  # noqa: SLF001 (the library shows it nowhere else)
            if transport.is_closing():
                raise RedisConnectionError("the connection ends at once")
            self._line = _Line(transport, self._lost)
        except RedisError as error:
            gathered, self._gathered = self._gathered, []
            for asked in gathered:
                asked.fail(error)
        finally:
            self._connecting = None
        if self._gathered:
            self._go()

    def _lost(self, unanswered: Iterable[_Asked]) -> None:
        """The connection is gone: what it carried is sent again."""
        self._line = None
        left = [asked for asked in unanswered if not asked.answer.done()]
        for asked in left:
            if asked.tries == _TRIES:
                asked.fail("the connection ends before a reply comes")
        self._gathered = [asked for asked in left if asked.tries < _TRIES] + self._gathered
        if self._gathered:
            self._go()

    def _look(self) -> None:
        """Give up who has waited too long, and a connection on which nothing comes."""
        self._looking, now = None, asyncio.get_running_loop().time()
        for asked in (*self._gathered, *(self._line.waiting if self._line else ())):
            if now - asked.since > PATIENCE:
                asked.fail(f"does not answer within {PATIENCE:.0f} seconds")
        if self._line is not None:
            self._line.look(now)
        if self._gathered or (self._line is not None and self._line.waiting):
            self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look)


class _Line(asyncio.Protocol):
    """The connection: commands go out, replies come in the same order."""

    def __init__(self, transport: Any, lost: Callable[[Iterable[_Asked]], None]) -> None:
        self.waiting: deque[_Asked] = deque()
        self.lost = lost
        self._transport = transport
        self._reader = Reader(replyError=ResponseError, notEnoughData=_NOT_YET)
        self._heard = 0.0
        transport.set_protocol(self)

    def send(self, gathered: list[_Asked]) -> None:
        if not self.waiting:
            self._heard = asyncio.get_running_loop().time()
        for asked in gathered:
            asked.tries += 1
        self.waiting.extend(gathered)
        self._transport.write(b"".join([asked.command for asked in gathered]))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not _NOT_YET:
            answer = self.waiting.popleft().answer
            if answer.done():
                continue
            if isinstance(reply, ResponseError):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)
        self._heard = asyncio.get_running_loop().time()

    def look(self, now: float) -> None:
        if self.waiting and now - self._heard > REPLY:
            self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self.lost(self.waiting)
