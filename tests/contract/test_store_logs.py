"""Logs and small outputs on a real Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_kit import ATTEMPT, a_chunk, a_job, begun, ended, log_of, on_redis

from dray.errors import NotKept, Stale
from dray.log import Chunk, Cursor, cut, lines
from dray.store import SMALL_OUTPUT, Entry, Kept, Laid, Store
from kit.redis import RedisServer

# --- logs


@on_redis
async def test_a_chunk_appended_twice_is_kept_once(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    first = a_chunk(0, b"a", b"b")
    second = a_chunk(first.end.offset, b"c")
    for chunk in (first, first, second, second):
        await store.append("A", ATTEMPT, chunk, 0)
    assert await log_of(store, "A") == [b"a", b"b", b"c"]
    assert await store.cursors("A") == {ATTEMPT: second.end}


@on_redis
async def test_a_chunk_that_does_not_follow_is_stale(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    first = a_chunk(0, b"a")
    second = a_chunk(first.end.offset, b"b")
    with pytest.raises(Stale):
        await store.append("A", ATTEMPT, second, 0)
    await store.append("A", ATTEMPT, first, 0)
    await store.append("A", ATTEMPT, second, 0)
    with pytest.raises(Stale):
        await store.append("A", ATTEMPT, first, 0)
    assert await log_of(store, "A") == [b"a", b"b"]


@on_redis
async def test_of_two_who_append_the_same_place_one_is_kept(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    await store.append("A", ATTEMPT, a_chunk(0, b"mine"), 0)
    with pytest.raises(Stale):
        await store.append("A", ATTEMPT, a_chunk(0, b"and yours"), 0)
    assert await log_of(store, "A") == [b"mine"]


@on_redis
async def test_attempts_have_cursors_of_their_own_and_one_log(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A", steps=2))
    chunks = {(0, 1): a_chunk(0, b"a"), (1, 1): a_chunk(0, b"b"), (1, 2): a_chunk(0, b"c", b"d")}
    for key, chunk in chunks.items():
        await store.append("A", key, chunk, 0)
    assert await store.cursors("A") == {key: chunk.end for key, chunk in chunks.items()}
    assert await log_of(store, "A") == [b"a", b"b", b"c", b"d"]


@on_redis
async def test_a_cursor_inside_a_held_line_follows_too(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    first = replace(a_chunk(0, b"a"), end=Cursor(0, skip=1))
    second = replace(a_chunk(0, b"b"), start=Cursor(0, skip=1), end=Cursor(99))
    for chunk in (first, first, second, second):
        await store.append("A", ATTEMPT, chunk, 0)
    assert await log_of(store, "A") == [b"a", b"b"]


async def _long_log(store: Store, chunks: int) -> list[bytes]:
    """Its lines: one to five in a chunk."""
    await store.create(a_job("A"))
    written: list[bytes] = []
    offset = 0
    for number in range(chunks):
        found = [f"{number}.{line}".encode() for line in range(number % 5 + 1)]
        chunk = a_chunk(offset, *found)
        await store.append("A", ATTEMPT, chunk, 0)
        offset = chunk.end.offset
        written += found
    return written


@on_redis
async def test_a_long_log_is_right_from_every_index_on(store: Store, server: RedisServer) -> None:
    written = await _long_log(store, 150)
    for index in range(-len(written) - 2, len(written) + 3):
        assert await log_of(store, "A", index) == (written[index:] if index >= -len(written) else written), index


@on_redis
async def test_pages_of_any_size_make_the_same_log(store: Store, server: RedisServer) -> None:
    written = await _long_log(store, 20)
    for page in range(1, 23):
        for index in (0, 1, 17, len(written) - 1, -1, -20):
            assert await log_of(store, "A", index, page) == written[index:]


@on_redis
async def test_reading_begins_with_the_chunk_that_holds_the_index(store: Store, server: RedisServer) -> None:
    written = await _long_log(store, 100)
    chunks = store.log("A", len(written) - 1)
    assert (await anext(chunks)).first == len(written) - 1
    number, _, chunk = await anext(chunks)
    assert number + sum(block.lines for block, _ in lines(chunk)) == len(written)
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


@on_redis
async def test_a_few_lines_of_a_large_chunk_are_read_alone(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    payload = b"".join(a_chunk(0, *(f"{block}.{line}".encode() for line in range(500))).payload for block in range(400))
    await store.append("A", ATTEMPT, Chunk(Cursor(), Cursor(len(payload)), 200_000, payload), 0)
    for index in (0, 99_999, 199_990, -1):
        read = await store.read("A", index, 9, 10)
        assert sum(len(entry.blocks) for entry in read.entries) < len(payload) / 10
        assert sum(len(cut(entry.blocks, read.start - entry.first, read.start - entry.first + 10)) for entry in read.entries) == min(10, 200_000 - read.start)
    assert await log_of(store, "A", 199_999) == [b"399.499"]


@on_redis
async def test_an_index_beyond_all_numbers_is_past_the_end(store: Store, server: RedisServer) -> None:
    written = await _long_log(store, 3)
    for index in (len(written), 2**31, 2**53, 2**63, 10**40):
        assert await log_of(store, "A", index) == []
        assert await log_of(store, "A", -index) == written


@on_redis
async def test_a_job_without_lines_has_an_empty_log(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    for index in (-1, 0, 1):
        assert await log_of(store, "A", index) == []


@on_redis
async def test_bytes_in_a_log_are_kept_as_they_are(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    line = bytes(byte for byte in range(256) if byte != 10) + b"."
    await store.append("A", ATTEMPT, a_chunk(0, line), 0)
    assert await log_of(store, "A") == [line]


@on_redis
async def test_a_log_is_read_with_who_wrote_it_and_whether_more_can_come(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    chunks = {(0, 1): a_chunk(0, b"a", b"b"), (0, 2): a_chunk(0, b"c")}
    for key, chunk in chunks.items():
        await store.append("A", key, chunk, job.fence)
    entries = [Entry(0, (0, 1), chunks[0, 1].payload), Entry(2, (0, 2), chunks[0, 2].payload)]
    assert await store.read("A", 0, 9) == (0, False, entries)
    assert await store.read("A", 1, 1) == (1, False, entries[:1])
    await store.save(ended(job))
    assert await store.read("A", -1, 9) == (2, True, entries[1:])
    assert await store.read("A", 3, 9) == (3, True, [])


@on_redis
async def test_the_last_lines_of_stderr_are_those_of_the_attempt(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    assert await store.stderr("A", ATTEMPT) == ()
    at = 0
    for number in range(30):
        for stream in (1, 2):
            chunk = a_chunk(at, b"%d of stream %d" % (number, stream), stream=stream)
            await store.append("A", ATTEMPT, chunk, 0)
            at = chunk.end.offset
    await store.append("A", (0, 2), a_chunk(0, b"other", stream=2), 0)
    assert await store.stderr("A", (0, 2)) == ("other",)
    last = await store.stderr("A", ATTEMPT)
    assert last[-1] == "29 of stream 2"
    assert 5 <= len(last) <= 10
    assert all(line.endswith("stream 2") for line in last)


@on_redis
async def test_long_or_broken_lines_of_stderr_are_cut_and_decoded(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    await store.append("A", ATTEMPT, a_chunk(0, *[b"early"] * 100, b"x" * 5000, b"\xff", stream=2), 0)
    assert await store.stderr("A", ATTEMPT) == ("early",) * 8 + ("x" * 1000, "\ufffd")


@on_redis
async def test_followers_hear_of_what_is_new(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    news = store.news()
    assert await anext(news) is None
    await store.append("A", ATTEMPT, a_chunk(0, b"a"), job.fence)
    assert await anext(news) == "A"
    await store.save(ended(job))
    assert await anext(news) == "A"
    await store.doom("A")
    assert await anext(news) == "A"
    assert await anext(news) == ""


# --- outputs


@on_redis
async def test_a_small_output_of_each_step_is_kept_as_it_is(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A", steps=2))
    job = await store.get("A")
    assert await store.small_output("A", 0) is None
    for output in (b"", b"\0\xff\r\n", b"x" * SMALL_OUTPUT):
        await store.keep_output(job, 0, output)
        await store.keep_output(job, 1, b"other")
        assert (await store.small_output("A", 0), await store.small_output("A", 1)) == (output, b"other")


@on_redis
async def test_a_rerun_has_the_output_that_it_goes_on_from_even_when_the_first_job_is_gone(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    await store.keep_output(job, 0, b"kept")
    for _ in range(2):
        assert await store.create(a_job("B", steps=2), laid=Laid(Kept("A", (0,)))) == "B"
    await store.doom("A")
    found = await store.load("A")
    assert found is not None
    await store.forget(found)
    assert await store.small_output("B", 0) == b"kept"
    with pytest.raises(NotKept):
        await store.create(a_job("C", steps=2), laid=Laid(Kept("A", (0,))))
    assert await store.load("C") is None
