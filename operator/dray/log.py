"""The runner's log blocks → log lines. No I/O; docs/protocol.md has the format.

A block is a 24-byte header and a payload: whole lines of one stream that were read together, or, flagged OPEN, a piece
of a line too long to be held. `Tail` follows one attempt's log file and cuts it into chunks of whole lines, which
`store` keeps as they are; `lines` takes a chunk apart again for a reader. Work is per block, not per line.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_HEADER = struct.Struct("<IIqBB6x")
_OPEN = 1
_STREAMS = 3
_FAR = 2**53  # microseconds: further than any clock goes


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an attempt's log file from which following can go on.

    `offset` is the start of a block; of the lines that end in blocks from there on, the first `skip` are already kept.
    """

    offset: int = 0
    skip: int = 0

    def dump(self) -> str:
        return f"{self.offset}:{self.skip}"

    @classmethod
    def load(cls, text: str) -> Cursor:
        offset, _, skip = text.partition(":")
        return cls(int(offset), int(skip))


@dataclass(frozen=True, slots=True)
class Block:
    """`stream`: 1 stdout, 2 stderr, 0 dray's own marker; `time`: microseconds since the epoch."""

    lines: int
    time: int
    stream: int
    payload: bytes

    def dump(self) -> bytes:
        return _HEADER.pack(len(self.payload), self.lines, self.time, self.stream, 0) + self.payload


@dataclass(frozen=True, slots=True)
class Chunk:
    """Blocks of whole lines, as they lie in the store: `lines` of them in `payload`, from cursor `start` to `end`."""

    start: Cursor
    end: Cursor
    lines: int
    payload: bytes


@dataclass
class _OpenLine:
    """A long line whose end has not been read: where its first block starts, and its pieces."""

    offset: int
    pieces: list[bytes] = field(default_factory=list)


class Tail:
    """Follows one attempt's log file from a cursor: feed it the file's bytes in order, take chunks of whole lines.

    `damaged`: a block came that is none of the runner's, as where the step itself wrote into the file. That one and what
    follows is not taken.
    """

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.offset = cursor.offset  # of the next byte to be fed
        self._rest = b""  # fed, but not yet a whole block
        self._open: dict[int, _OpenLine] = {}
        self._skip = cursor.skip
        self.damaged = False
        self._ends: list[tuple[int, int]] = []  # (offset, lines) of the blocks since the oldest open line

    def feed(self, raw: bytes) -> Chunk | None:
        """The whole lines that `raw` completes, or None where it completes none."""
        position = self.offset - len(self._rest)
        buffer = self._rest + raw if self._rest else raw
        self.offset += len(raw)
        blocks: list[Block] = []
        consumed = 0
        for start, end, block, is_open in _blocks(buffer):
            if not _sound(block, is_open):
                self.damaged = True
                break
            consumed = end
            whole = self._join(position + start, block, is_open)
            if whole is not None:
                blocks.append(whole)
        self._rest = buffer[consumed:]
        return self._chunk(position + consumed, blocks)

    def _join(self, offset: int, block: Block, is_open: bool) -> Block | None:
        pending = self._open.get(block.stream)
        if is_open:
            self._open.setdefault(block.stream, _OpenLine(offset)).pieces.append(block.payload)
            return None
        if pending is not None:
            del self._open[block.stream]
            block = Block(block.lines, block.time, block.stream, b"".join(pending.pieces) + block.payload)
        self._ends.append((offset, block.lines))
        return self._without_kept(block)

    def _without_kept(self, block: Block) -> Block | None:
        """What of a block is not yet in the store: after a restart the first `skip` lines are."""
        if self._skip == 0:
            return block
        kept = min(self._skip, block.lines)
        self._skip -= kept
        if kept == block.lines:
            return None
        rest = block.payload.split(b"\n", kept)[kept]
        return Block(block.lines - kept, block.time, block.stream, rest)

    def _chunk(self, position: int, blocks: list[Block]) -> Chunk | None:
        if self._open:
            oldest = min(line.offset for line in self._open.values())
            self._ends = [(offset, lines) for offset, lines in self._ends if offset >= oldest]
            end = Cursor(oldest, sum(lines for _, lines in self._ends))
        else:
            self._ends.clear()
            end = Cursor(position)
        start, self.cursor = self.cursor, end
        if not blocks:
            self.cursor = start
            return None
        return Chunk(start, end, sum(block.lines for block in blocks), b"".join(block.dump() for block in blocks))


def lines(payload: bytes) -> Iterator[tuple[Block, list[bytes]]]:
    """Each block of a stored chunk with its lines, without their line ends (`\\n`, or `\\r\\n` as the original cut them)."""
    for _, _, block, _ in _blocks(payload):
        yield block, _texts(block.payload, block.lines)


def parts(payload: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """A chunk in pieces of whole blocks: each with its count of lines, and of about `size` bytes where no block is larger."""
    start = end = count = 0
    while end < len(payload):
        length, block_lines, *_ = _HEADER.unpack_from(payload, end)
        end += _HEADER.size + length
        count += block_lines
        if end - start >= size or end == len(payload):
            yield count, payload[start:end]
            start, count = end, 0


def cut(payload: bytes, first: int, last: int) -> list[bytes]:
    """A chunk's lines from the one numbered `first` in it to before `last`. Blocks before and after are not looked into."""
    found: list[bytes] = []
    at = start = 0
    while at < last and start < len(payload):
        length, count, *_ = _HEADER.unpack_from(payload, start)
        end = start + _HEADER.size + length
        if at + count > first:
            found += _texts(payload[start + _HEADER.size : end], count)[max(first - at, 0) : last - at]
        at, start = at + count, end
    return found


def _sound(block: Block, is_open: bool) -> bool:
    """Whether the header may be the payload's."""
    ends = block.payload.count(b"\n")
    lines = ends if is_open or block.payload.endswith(b"\n") else ends + 1
    return block.lines == lines and not (is_open and ends) and block.stream < _STREAMS and 0 <= block.time < _FAR


def _texts(raw: bytes, count: int) -> list[bytes]:
    found = raw.split(b"\n")
    if len(found) > count:
        found.pop()
    return [line.removesuffix(b"\r") for line in found] if b"\r" in raw else found


def _blocks(buffer: bytes) -> Iterator[tuple[int, int, Block, bool]]:
    """(start, end, block, open) of each whole block in the buffer."""
    start = 0
    while start + _HEADER.size <= len(buffer):
        size, count, time, stream, flags = _HEADER.unpack_from(buffer, start)
        end = start + _HEADER.size + size
        if end > len(buffer):
            return
        yield start, end, Block(count, time, stream, buffer[start + _HEADER.size : end]), bool(flags & _OPEN)
        start = end
