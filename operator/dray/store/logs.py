"""Logs, and the small outputs of steps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

from dray.errors import Stale
from dray.log import Chunk, Cursor, lines
from dray.pod import Key
from dray.record import Job
from dray.store import keys, scripts
from dray.store.connection import Connection, available
from dray.store.records import unknown

SMALL_OUTPUT = 64 * 2**10  # bytes: an output up to this size is kept in Redis
_LAST_LINES, _LINE = 10, 1000  # of stderr, in the record; characters
_LOOKED_BACK = 16  # chunks
_STDERR = 2  # a block's stream
_FAR = 2**53  # a Lua number has no larger whole ones


class Entry(NamedTuple):
    """A chunk of the log: the number of its first line, the attempt that wrote it, its blocks."""

    first: int
    key: Key
    blocks: bytes


class Read(NamedTuple):
    """`start`: the index that was asked for, counted from the beginning. `ended`: the job has, so this is all there will be."""

    start: int
    ended: bool
    entries: list[Entry]


class Logs(Connection):
    @available
    async def cursors(self, job_id: str) -> dict[Key, Cursor]:
        """How far each attempt's log is kept."""
        found = await self._redis.hgetall(keys.cursors(job_id))
        return {_key(name): Cursor.load(text.decode()) for name, text in found.items() if name != b"lines"}

    async def append(self, job_id: str, key: Key, chunk: Chunk, fence: int) -> None:
        """Keep a chunk of the log of attempt `key`. Raises Stale when it does not follow on what is kept, or the job is another operator's."""
        args: list[Any] = [job_id, fence, "{}.{}".format(*key), chunk.start.dump(), chunk.end.dump(), chunk.lines, chunk.payload, keys.NEWS]
        if not await self._run(scripts.APPEND, [keys.job(job_id), keys.log(job_id), keys.cursors(job_id)], args):
            raise Stale(job_id)

    async def read(self, job_id: str, index: int, count: int) -> Read:
        """At most `count` chunks, from the one that holds line `index` on; a negative one counts from the end. Raises NotFound."""
        bounded = max(min(index, _FAR), -_FAR)
        found = await self._run(scripts.READ_LOG, [keys.job(job_id), keys.log(job_id), keys.cursors(job_id)], [bounded, count])
        if found is None:
            raise unknown(job_id)
        start, ended, entries = found
        return Read(int(start), bool(ended), [_entry(*entry) for entry in entries])

    async def log(self, job_id: str, index: int, page: int = 64) -> AsyncIterator[Entry]:
        """Chunks from the one that holds line `index` on. What is yielded first has no blocks: only the index, resolved. Raises NotFound."""
        start, _, entries = await self.read(job_id, index, page)
        yield Entry(start, (0, 0), b"")
        while entries:
            for entry in entries:
                yield entry
            entries = await self._after(job_id, entries[-1], page) if len(entries) == page else []

    @available
    async def _after(self, job_id: str, last: Entry, page: int) -> list[Entry]:
        found = await self._redis.xrange(keys.log(job_id), f"(0-{last.first + 1}", "+", count=page)
        return [_entry(*entry) for entry in found]

    @available
    async def stderr(self, job_id: str, key: Key) -> tuple[str, ...]:
        """The last lines that the attempt wrote on stderr, as far as they stand in the end of the log; long ones cut short."""
        found: list[str] = []
        last = "+"
        for _ in range(_LOOKED_BACK):
            entries = await self._redis.xrevrange(keys.log(job_id), last, "-", count=1)
            if not entries or len(found) >= _LAST_LINES:
                break
            entry = _entry(*entries[0])
            if entry.key == key:
                found = _of_stderr(entry.blocks) + found
            last = f"(0-{entry.first + 1}"
        return tuple(found[-_LAST_LINES:])

    def news(self) -> AsyncGenerator[str | None]:
        """Ids of jobs whose log grew or whose record was saved or deleted; None when listening has begun, also anew; "" every second without one."""
        return self._listen(keys.NEWS)

    # --- small outputs

    async def keep_output(self, job: Job, step: int, output: bytes) -> None:
        """Of at most SMALL_OUTPUT bytes. Raises Stale when the job is another operator's."""
        if not await self._run(scripts.KEEP_OUTPUT, [keys.job(job.id), keys.outputs(job.id)], [job.fence, step, output]):
            raise Stale(job.id)

    @available
    async def small_output(self, job_id: str, step: int) -> bytes | None:
        """None: it is not kept, or not here."""
        output: bytes | None = await self._redis.hget(keys.outputs(job_id), step)
        return output


def _of_stderr(blocks: bytes) -> list[str]:
    kept: list[bytes] = []
    for block, found in lines(blocks):
        if block.stream == _STDERR:
            kept = (kept + found)[-_LAST_LINES:]
    return [line.decode(errors="replace")[:_LINE] for line in kept]


def _entry(entry_id: bytes, values: Any) -> Entry:
    """As a script returns it, or as the client has parsed it."""
    fields = dict(zip(values[::2], values[1::2], strict=True)) if isinstance(values, list) else values
    return Entry(int(entry_id[2:]) - 1, _key(fields[b"attempt"]), fields[b"blocks"])


def _key(name: bytes) -> Key:
    step, _, attempt = name.partition(b".")
    return int(step), int(attempt)
