"""The log as it grows: server-sent events, each line once, resumed by its number.

However many follow, there is one connection that listens to Redis; what is new is read for each as fast as it reads.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress

import orjson

from dray.errors import NotFound, Unavailable
from dray.log import Block, lines
from dray.store import Entry, Store
from dray.tasks import end
from dray_api import jobs

HEARTBEAT = 15.0  # seconds without a line, after which a comment is sent
_PAUSE = 1.0  # seconds after Redis did not answer
_STREAMS = ("dray", "stdout", "stderr")
_AT_ONCE = 64 * 2**10  # bytes of lines in one piece


class Followers:
    """Who waits for news of which job. One task listens while there are any."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._listening: asyncio.Task[None] | None = None
        self.closed = False

    @contextmanager
    def news_of(self, job_id: str) -> Iterator[asyncio.Event]:
        """Set when there may be something new of the job, and from `close` on."""
        news = asyncio.Event()
        self._waiting[job_id].add(news)
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen())
        try:
            yield news
        finally:
            self._waiting[job_id].discard(news)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def close(self) -> None:
        """Let all go: the server ends."""
        self.closed = True
        self._wake(None)
        if self._listening is not None:
            await end(self._listening)

    async def _listen(self) -> None:
        """Until nobody is left. What was missed while Redis was away is looked for when it is back."""
        while self._waiting:
            with suppress(Unavailable):
                async with aclosing(self._store.news()) as news:
                    async for job_id in news:
                        if job_id != "":
                            self._wake(job_id)
                        if not self._waiting:
                            break
            if self._waiting:
                await asyncio.sleep(_PAUSE)

    def _wake(self, job_id: str | None) -> None:
        """Those of one job, or of all."""
        for waiting in list(self._waiting.values()) if job_id is None else [self._waiting.get(job_id, set())]:
            for news in waiting:
                news.set()


async def events(store: Store, followers: Followers, job_id: str, index: int) -> AsyncIterator[bytes]:
    """The lines from the index on as they come, then the record. Raises NotFound, at the first piece.

    Redis may be away for a while: then nothing comes.
    """
    start = (await store.read(job_id, index, 1)).start
    yield b"retry: 1000\n\n"
    with followers.news_of(job_id) as news:
        while not followers.closed:
            news.clear()
            try:
                read = await store.read(job_id, start, 1)
                for entry in read.entries:
                    for piece, after in _pieces(entry, start):
                        start = after
                        yield piece
                if read.entries:
                    continue
                if read.ended:
                    yield b"event: end\ndata: " + orjson.dumps(jobs.record(await store.get(job_id))) + b"\n\n"
                    return
            except NotFound:
                yield b"event: deleted\ndata: {}\n\n"
                return
            except Unavailable:
                await asyncio.sleep(_PAUSE)
            if not await within(news, HEARTBEAT):
                yield b":\n\n"


async def within(news: asyncio.Event, seconds: float) -> bool:
    """Whether it is set in time."""
    try:
        async with asyncio.timeout(seconds):
            return await news.wait()
    except TimeoutError:
        return False


def _pieces(entry: Entry, start: int) -> Iterator[tuple[bytes, int]]:
    """(some events, the line to go on from), from line `start` on."""
    number, piece = entry.first, bytearray()
    step, attempt = entry.key
    for block, found in lines(entry.blocks):
        for text in jobs.texts(found):
            if number >= start:
                piece += _event(number, (step + 1, attempt), block, text)
            number += 1
            if len(piece) > _AT_ONCE:
                yield bytes(piece), number
                piece.clear()
    yield bytes(piece), number


def _event(number: int, key: tuple[int, int], block: Block, text: str) -> bytes:
    line = {"seq": number, "time": jobs.rfc3339(block.time), "step": key[0], "attempt": key[1], "stream": _STREAMS[block.stream], "line": text}
    return b"id: %d\ndata: %b\n\n" % (number, orjson.dumps(line))
