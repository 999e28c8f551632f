"""Logs, and the small outputs of steps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

from dray.errors import Stale
from dray.log import Chunk, Cursor, lines, parts
from dray.pod import Key
from dray.record import Job
from dray.store import keys
from dray.store.connection import Connection, available
from dray.store.records import unknown
from dray.store.scripts import logs as scripts

SMALL_OUTPUT = 64 * 2**10  # bytes: an output up to this size is kept in Redis
_AT_ONCE = 16  # of them, a round trip
_LAST_LINES, _LINE = 10, 1000  # of stderr, in the record; characters
_ENTRY = 64 * 2**10  # bytes of log in one entry, where no block is larger
_LOOKED_BACK = 256  # entries
_STDERR = 2  # a block's stream
_FAR = 2**53  # a Lua number has no larger whole ones


class Entry(NamedTuple):
    """A piece of the log: the number of its first line, the attempt that wrote it, its blocks."""

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
        """Keep a chunk of the log of attempt `key`, in entries that are quick to read.

        Raises Stale when it does not follow on what is kept, or the job is another operator's.
        """
        args: list[Any] = [job_id, fence, "{}.{}".format(*key), chunk.start.dump(), chunk.end.dump(), chunk.lines, keys.NEWS]
        for part in parts(chunk.payload, _ENTRY):
            args += part
        if not await self._run(scripts.APPEND, [keys.job(job_id), keys.log(job_id), keys.cursors(job_id)], args):
            raise Stale(job_id)

    async def read(self, job_id: str, index: int, count: int, limit: int = _FAR) -> Read:
        """At most `count` entries: those that hold the `limit` lines from `index` on; a negative one counts from the end. Raises NotFound."""
        bounded = max(min(index, _FAR), -_FAR)
        args = [bounded, count, min(limit, _FAR)]
        found = await self._run(scripts.READ_LOG, [keys.job(job_id), keys.log(job_id), keys.cursors(job_id)], args)
        if found is None:
            raise unknown(job_id)
        start, ended, entries = found
        return Read(start, bool(ended), [_entry(*entry) for entry in entries])

    async def log(self, job_id: str, index: int, page: int = 64, limit: int = _FAR) -> AsyncIterator[Entry]:
        """The same, all of them. What is yielded first has no blocks: only the index, resolved. Raises NotFound."""
        start, _, entries = await self.read(job_id, index, page, limit)
        yield Entry(start, (0, 0), b"")
        while entries:
            for entry in entries:
                yield entry
            entries = await self._between(job_id, entries[-1].first, start + limit, page) if len(entries) == page else []

    @available
    async def _between(self, job_id: str, after: int, before: int, page: int) -> list[Entry]:
        """Those that begin with a line between the two."""
        found = await self._redis.xrange(keys.log(job_id), f"(0-{after + 1}", f"0-{before}", count=page)
        return [_entry(*entry) for entry in found]

    @available
    async def stderr(self, job_id: str, key: Key) -> tuple[str, ...]:
        """The last lines that the attempt wrote on stderr, as far as they stand in the end of the log; long ones cut short."""
        found: list[str] = []
        last, looked = "+", 0
        while looked < _LOOKED_BACK and len(found) < _LAST_LINES:
            entries = [_entry(*entry) for entry in await self._redis.xrevrange(keys.log(job_id), last, "-", count=_AT_ONCE)]
            if not entries:
                break
            for entry in entries:
                if entry.key == key:
                    found = _of_stderr(entry.blocks) + found
            last, looked = f"(0-{entries[-1].first + 1}", looked + len(entries)
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
    async def small_output(self, job_id: str, name: int | str) -> bytes | None:
        """Of a step, or the job's input (INPUT). None: it is not kept, or not here."""
        output: bytes | None = await self._redis.hget(keys.outputs(job_id), name)
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
