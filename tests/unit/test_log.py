"""Log blocks: whatever was written, however it was cut into blocks and reads, and wherever the reader began again, each line comes once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dray.log import Block, Chunk, Cursor, Tail, cut, lines, parts

OPEN = 1
STDOUT, STDERR, MARKER = 1, 2, 0
Line = tuple[int, bytes]

BYTES = st.binary(max_size=12).map(lambda raw: raw.replace(b"a", b"\n").replace(b"b", b"\r\n")) | st.sampled_from(
    [b"\n", b"\r\n", b"x\n", b"\r", b"\n\n", b"long"]
)
WRITES = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), BYTES), max_size=12)


class Writer:
    """A log file as the runner writes it: whole lines as they come; what is held longer than `held` bytes goes as OPEN pieces."""

    def __init__(self, held: int) -> None:
        self.file = bytearray()
        self.expected: list[Line] = []
        self._most = held
        self._held = {STDOUT: b"", STDERR: b""}
        self._open = {STDOUT: b"", STDERR: b""}
        self._time = 0

    def take(self, stream: int, raw: bytes) -> None:
        whole, end, rest = raw.rpartition(b"\n")
        if end:
            self._whole(stream, self._held[stream] + whole + end)
            self._held[stream] = b""
        self._held[stream] += rest
        if len(self._held[stream]) > self._most:
            self._put(stream, 0, OPEN, self._held[stream])
            self._open[stream] += self._held[stream]
            self._held[stream] = b""

    def marker(self) -> None:
        self._whole(MARKER, b"dray: 1 lines left out\n")

    def finish(self) -> bytes:
        for stream, held in self._held.items():
            if held:
                self._put(stream, 1, 0, held)
                self._tell(stream, held)
            elif self._open[stream]:
                self._put(stream, 1, 0, b"")
                self._tell(stream, b"")
        return bytes(self.file)

    def _whole(self, stream: int, payload: bytes) -> None:
        self._put(stream, payload.count(b"\n"), 0, payload)
        self._tell(stream, payload[:-1])

    def _put(self, stream: int, count: int, flags: int, payload: bytes) -> None:
        self._time += 1
        block = bytearray(Block(count, self._time, stream, payload).dump())
        block[17] = flags
        self.file += block

    def _tell(self, stream: int, ended: bytes) -> None:
        found = self._open.get(stream, b"") + ended
        self._open[stream] = b""
        self.expected += [(stream, line.removesuffix(b"\r")) for line in found.split(b"\n")]


def _written(writes: list[tuple[int, bytes]], held: int) -> Writer:
    writer = Writer(held)
    for stream, raw in writes:
        writer.take(stream, raw)
    writer.finish()
    return writer


def _pieces(raw: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return (raw[start:end] for start, end in pairwise(places))


def _read(tail: Tail, pieces: Iterator[bytes]) -> list[Chunk]:
    return [chunk for piece in pieces if (chunk := tail.feed(piece)) is not None]


def _lines(chunks: list[Chunk]) -> list[Line]:
    return [(block.stream, line) for chunk in chunks for block, found in lines(chunk.payload) for line in found]


@given(WRITES, st.integers(0, 8), st.lists(st.integers(0, 10_000), max_size=8))
def test_every_line_comes_once_however_the_file_is_read(writes: list[tuple[int, bytes]], held: int, cuts: list[int]) -> None:
    writer = _written(writes, held)
    chunks = _read(Tail(Cursor()), _pieces(bytes(writer.file), cuts))
    assert _lines(chunks) == writer.expected
    assert sum(chunk.lines for chunk in chunks) == len(writer.expected)


@given(WRITES, st.integers(0, 8), st.lists(st.integers(0, 10_000), max_size=8), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_reader_that_begins_again_at_any_chunk_goes_on_just_there(writes: list[tuple[int, bytes]], held: int, cuts: list[int], later: list[int]) -> None:
    writer = _written(writes, held)
    raw = bytes(writer.file)
    chunks = _read(Tail(Cursor()), _pieces(raw, cuts))
    for kept in range(len(chunks) + 1):
        cursor = Cursor.load(chunks[kept - 1].end.dump()) if kept else Cursor()
        again = _read(Tail(cursor), _pieces(raw[cursor.offset :], later))
        assert _lines(chunks[:kept] + again) == writer.expected


@given(WRITES, st.integers(0, 8), st.lists(st.integers(0, 10_000), max_size=8))
def test_each_chunk_follows_on_the_one_before(writes: list[tuple[int, bytes]], held: int, cuts: list[int]) -> None:
    chunks = _read(Tail(Cursor()), _pieces(bytes(_written(writes, held).file), cuts))
    assert [chunk.start for chunk in chunks] == [Cursor(), *(chunk.end for chunk in chunks)][: len(chunks)]
    assert all(chunk.lines > 0 for chunk in chunks)
    assert all(chunk.start != chunk.end for chunk in chunks)


@given(WRITES, st.integers(0, 8), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_chunks_lines_are_as_many_as_its_blocks_say(writes: list[tuple[int, bytes]], held: int, cuts: list[int]) -> None:
    for chunk in _read(Tail(Cursor()), _pieces(bytes(_written(writes, held).file), cuts)):
        found = list(lines(chunk.payload))
        assert all(block.lines == len(split) for block, split in found)
        assert sum(block.lines for block, _ in found) == chunk.lines


def test_a_long_line_holds_the_cursor_back_but_not_the_other_stream() -> None:
    writer = Writer(held=3)
    writer.take(STDOUT, b"long line, ")
    writer.take(STDERR, b"one\ntwo\n")
    first = Tail(Cursor()).feed(bytes(writer.file))
    assert first is not None
    assert first.end == Cursor(0, skip=2)
    assert _lines([first]) == [(STDERR, b"one"), (STDERR, b"two")]
    writer.take(STDOUT, b"its end\n")
    rest = Tail(first.end).feed(bytes(writer.file))
    assert rest is not None
    assert rest.end == Cursor(len(writer.file))
    assert _lines([rest]) == [(STDOUT, b"long line, its end")]


def test_the_runners_own_marker_is_a_line_between_the_others() -> None:
    writer = Writer(held=8)
    writer.take(STDOUT, b"before\n")
    writer.marker()
    writer.take(STDOUT, b"after\n")
    chunks = _read(Tail(Cursor()), iter([bytes(writer.file)]))
    assert _lines(chunks) == [(STDOUT, b"before"), (MARKER, b"dray: 1 lines left out"), (STDOUT, b"after")]


def test_half_a_block_is_nothing_yet() -> None:
    raw = Block(1, 7, STDOUT, b"line\n").dump()
    for end in range(len(raw)):
        tail = Tail(Cursor())
        assert tail.feed(raw[:end]) is None
        chunk = tail.feed(raw[end:])
        assert chunk is not None
        assert (chunk.lines, chunk.end) == (1, Cursor(len(raw)))


@pytest.mark.parametrize(
    ("payload", "count", "found"),
    [
        (b"a\nb\n", 2, [b"a", b"b"]),
        (b"a\nb", 2, [b"a", b"b"]),
        (b"a\r\nb\r\n", 2, [b"a", b"b"]),
        (b"a\r\r\n", 1, [b"a\r"]),
        (b"a\r", 1, [b"a"]),
        (b"\n\n", 2, [b"", b""]),
        (b"", 1, [b""]),
        (b"\r\n", 1, [b""]),
        (b"a\0\xff\n", 1, [b"a\0\xff"]),
    ],
)
def test_lines_are_cut_as_the_original_cut_them(payload: bytes, count: int, found: list[bytes]) -> None:
    [(block, split)] = lines(Block(count, 7, STDERR, payload).dump())
    assert split == found
    assert (block.stream, block.time) == (STDERR, 7)


@given(WRITES, st.integers(0, 8), st.integers(1, 100), st.integers(-3, 40), st.integers(0, 40))
def test_a_chunk_in_parts_has_the_same_lines_from_anywhere(writes: list[tuple[int, bytes]], held: int, size: int, first: int, count: int) -> None:
    for chunk in _read(Tail(Cursor()), iter([bytes(_written(writes, held).file)])):
        pieces = list(parts(chunk.payload, size))
        assert b"".join(piece for _, piece in pieces) == chunk.payload
        assert [lines_of for lines_of, _ in pieces] == [sum(block.lines for block, _ in lines(piece)) for _, piece in pieces]
        whole = [line for _, found in lines(chunk.payload) for line in found]
        assert cut(chunk.payload, first, first + count) == whole[max(first, 0) : max(first + count, 0)]


@pytest.mark.parametrize(
    ("block", "flags"),
    [
        (Block(0, 1, STDOUT, b""), 0),
        (Block(2**31, 1, STDOUT, b"a\n"), 0),
        (Block(1, 1, STDOUT, b"a\nb\n"), 0),
        (Block(0, 1, STDOUT, b"a\nb"), OPEN),
        (Block(1, 1, STDOUT, b"a"), OPEN),
        (Block(1, 1, 3, b"a\n"), 0),
        (Block(1, 2**62, STDOUT, b"a\n"), 0),
        (Block(1, -1, STDOUT, b"a\n"), 0),
    ],
)
def test_from_a_block_on_that_no_runner_writes_nothing_is_taken(block: Block, flags: int) -> None:
    good, bad = Block(1, 1, STDOUT, b"good\n").dump(), bytearray(block.dump())
    bad[17] = flags
    tail = Tail(Cursor())
    assert _lines(_read(tail, iter([good + bad + good]))) == [(STDOUT, b"good")]
    assert tail.damaged
    assert tail.feed(good) is None
