"""The store on a real Redis: what each script promises, also when it runs twice because a reply was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from dray.errors import NotFound, Stale, Unavailable
from dray.log import Block, Chunk, Cursor, lines
from dray.spec import parse
from dray.state import Job, Phase, Reason, StepState, new_job
from dray.store import SMALL_OUTPUT, Store
from kit.api import with_store
from kit.redis import RedisServer

ATTEMPT = (0, 1)


def on_redis(test: Callable[[Store, RedisServer], Awaitable[None]]) -> Callable[[RedisServer], None]:
    """The test with a store on an empty Redis."""

    def tested(redis_server: RedisServer) -> None:
        redis_server.flush()
        with_store(redis_server.url, lambda store: test(store, redis_server))

    tested.__doc__ = test.__doc__
    return tested


def _job(job_id: str, steps: int = 1) -> Job:
    return new_job(job_id, parse({"name": "ä", "steps": [{"source": "a", "output": "stdout"}] * steps}), 1_465_575_323_794_364)


def _begun(job: Job) -> Job:
    return replace(job, phase=Phase.RUNNING, started_at=1)


def _chunk(start: int, *found: bytes) -> Chunk:
    """Lines in one block; in the log file it begins at byte `start`."""
    payload = Block(len(found), 7, 1, b"".join(line + b"\n" for line in found)).dump()
    return Chunk(Cursor(start), Cursor(start + len(payload)), len(found), payload)


async def _ids(store: Store) -> list[str]:
    return [job_id async for page in store.ids() for job_id in page]


async def _log(store: Store, job_id: str, index: int = 0, page: int = 64) -> list[bytes]:
    """All lines from the index on, as a reader cuts them out."""
    chunks = store.log(job_id, index, page)
    start, _ = await anext(chunks)
    return [line async for number, chunk in chunks for line in [line for _, found in lines(chunk) for line in found][max(start - number, 0) :]]


def _keys(server: RedisServer) -> set[str]:
    with server.client() as client:
        found: list[bytes] = client.keys("dray:*")
        return {key.decode() for key in found}


# --- records


@on_redis
async def test_a_record_comes_back_as_it_was(store: Store, server: RedisServer) -> None:
    job = _job("A", steps=2)
    await store.create(job)
    assert await store.load("A") == job
    steps = (StepState(Phase.COMPLETE, 2, 1, 0, 5, 6, 7, 8), StepState(Phase.ERROR, exit_code=3))
    ended = replace(job, phase=Phase.ERROR, pod="p", steps=steps, started_at=1, finished_at=2, reason=Reason.LOST, message="ö", output=9)
    await store.save(ended)
    found = await store.get("A")
    assert found == replace(ended, version=1)
    assert found.spec.steps[0].model_fields_set == job.spec.steps[0].model_fields_set


@on_redis
async def test_there_is_no_job_that_was_not_created(store: Store, server: RedisServer) -> None:
    assert await store.load("A") is None
    for call in (store.get("A"), store.doom("A"), anext(store.log("A", 0))):
        with pytest.raises(NotFound, match="no job A"):
            await call
    for call in (store.save(_job("A")), store.retire(_job("A")), store.append("A", ATTEMPT, _chunk(0, b"x"))):
        with pytest.raises(Stale):
            await call
    assert _keys(server) == set()


@on_redis
async def test_created_twice_is_one_job(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    await store.create(_job("B"))
    begun = await store.save(_begun(await store.get("A")))
    await store.create(_job("A"))
    assert await store.get("A") == begun
    assert await _ids(store) == ["A", "B"]
    assert await store.waiting(9) == ["B"]


@on_redis
async def test_jobs_are_listed_oldest_first_across_pages(store: Store, server: RedisServer) -> None:
    names = [f"{number * 7919 % 12000:05}" for number in range(12000)]
    for start in range(0, len(names), 50):
        await asyncio.gather(*(store.create(_job(name)) for name in names[start : start + 50]))
    with server.client() as client:
        in_order = [(await store.get(name)).id for name in (names[0], names[-1])]
        assert in_order == [names[0], names[-1]]
        scores = {name: client.zscore("dray:jobs", name) for name in names}
    pages = [page async for page in store.ids()]
    assert [len(page) for page in pages] == [5000, 5000, 2000]
    assert [job_id for page in pages for job_id in page] == sorted(names, key=lambda name: scores[name] or 0)


@on_redis
async def test_of_two_who_save_what_they_read_one_is_stale(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    mine, yours = await store.get("A"), await store.get("A")
    saved = await store.save(_begun(mine))
    assert saved.version == 1
    with pytest.raises(Stale):
        await store.save(replace(yours, message="lost"))
    assert await store.get("A") == saved


@on_redis
async def test_many_who_save_at_once_take_turns(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    read = await store.get("A")
    results = await asyncio.gather(*(store.save(replace(read, message=str(number))) for number in range(150)), return_exceptions=True)
    saved = [result for result in results if isinstance(result, Job)]
    assert len(saved) == 1
    assert all(isinstance(result, Stale) for result in results if result is not saved[0])
    assert await store.get("A") == saved[0]


@on_redis
async def test_a_save_whose_reply_was_lost_is_stale_and_already_kept(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    begun = _begun(await store.get("A"))
    await store.save(begun)
    with pytest.raises(Stale):
        await store.save(begun)
    assert await store.get("A") == replace(begun, version=1)
    assert (await store.waiting(9), await store.active()) == ([], ["A"])


# --- queues


@on_redis
async def test_a_job_goes_from_waiting_to_active_to_neither(store: Store, server: RedisServer) -> None:
    for name in "ABC":
        await store.create(_job(name))
    assert (await store.waiting(2), await store.waiting(0), await store.active()) == (["A", "B"], [], [])
    begun = {name: await store.save(_begun(await store.get(name))) for name in "BA"}
    assert (await store.waiting(9), await store.active()) == (["C"], ["A", "B"])
    await store.retire(begun["A"])
    await store.retire(begun["A"])
    assert (await store.waiting(9), await store.active()) == (["C"], ["B"])
    assert await _ids(store) == ["A", "B", "C"]


@on_redis
async def test_a_job_deleted_meanwhile_is_not_retired(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    begun = await store.save(_begun(await store.get("A")))
    await store.doom("A")
    with pytest.raises(Stale):
        await store.retire(begun)
    assert await store.active() == ["A"]


@on_redis
async def test_each_change_that_needs_an_operator_wakes_it(store: Store, server: RedisServer) -> None:
    wakes = store.wakes()
    assert await anext(wakes) is None
    await store.create(_job("A"))
    assert await anext(wakes) == "A"
    await store.create(_job("A"))
    await store.create(_job("B"))
    assert await anext(wakes) == "B"
    await store.doom("A")
    assert await anext(wakes) == "A"
    assert await anext(wakes) is None


@on_redis
async def test_an_instance_has_one_name(store: Store, server: RedisServer) -> None:
    names = await asyncio.gather(*(store.instance() for _ in range(20)))
    assert len(set(names)) == 1
    assert names[0]


# --- deleting


@on_redis
async def test_a_doomed_job_is_gone_for_clients_and_not_for_the_operator(store: Store, server: RedisServer) -> None:
    for name in "AB":
        await store.create(_job(name))
        await store.append(name, ATTEMPT, _chunk(0, b"x"))
    begun = await store.save(_begun(await store.get("A")))
    await store.doom("A")
    for call in (store.get("A"), store.doom("A"), anext(store.log("A", 0))):
        with pytest.raises(NotFound):
            await call
    assert await store.load("A") == replace(begun, doomed=True, version=2)
    assert (await _ids(store), await store.active()) == (["B"], ["A"])
    with pytest.raises(Stale):
        await store.save(begun)


@on_redis
async def test_a_job_doomed_before_its_turn_never_gets_one(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    await store.doom("A")
    assert (await store.waiting(9), await store.active()) == ([], ["A"])


@on_redis
async def test_a_forgotten_job_leaves_no_key(store: Store, server: RedisServer) -> None:
    await store.create(_job("B"))
    others = _keys(server)
    await store.create(_job("A"))
    await store.save(_begun(await store.get("A")))
    await store.append("A", ATTEMPT, _chunk(0, b"x"))
    await store.keep_output("A", b"output")
    await store.doom("A")
    await store.forget("A")
    await store.forget("A")
    assert _keys(server) == others
    assert (await _ids(store), await store.active()) == (["B"], [])
    with pytest.raises(Stale):
        await store.append("A", ATTEMPT, _chunk(0, b"late"))
    assert _keys(server) == others


# --- logs


@on_redis
async def test_a_chunk_appended_twice_is_kept_once(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    first = _chunk(0, b"a", b"b")
    second = _chunk(first.end.offset, b"c")
    for chunk in (first, first, second, second):
        await store.append("A", ATTEMPT, chunk)
    assert await _log(store, "A") == [b"a", b"b", b"c"]
    assert await store.cursors("A") == {ATTEMPT: second.end}


@on_redis
async def test_a_chunk_that_does_not_follow_is_stale(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    first = _chunk(0, b"a")
    second = _chunk(first.end.offset, b"b")
    with pytest.raises(Stale):
        await store.append("A", ATTEMPT, second)
    await store.append("A", ATTEMPT, first)
    await store.append("A", ATTEMPT, second)
    with pytest.raises(Stale):
        await store.append("A", ATTEMPT, first)
    assert await _log(store, "A") == [b"a", b"b"]


@on_redis
async def test_of_two_who_append_the_same_place_one_is_kept(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    await store.append("A", ATTEMPT, _chunk(0, b"mine"))
    with pytest.raises(Stale):
        await store.append("A", ATTEMPT, _chunk(0, b"and yours"))
    assert await _log(store, "A") == [b"mine"]


@on_redis
async def test_attempts_have_cursors_of_their_own_and_one_log(store: Store, server: RedisServer) -> None:
    await store.create(_job("A", steps=2))
    chunks = {(0, 1): _chunk(0, b"a"), (1, 1): _chunk(0, b"b"), (1, 2): _chunk(0, b"c", b"d")}
    for key, chunk in chunks.items():
        await store.append("A", key, chunk)
    assert await store.cursors("A") == {key: chunk.end for key, chunk in chunks.items()}
    assert await _log(store, "A") == [b"a", b"b", b"c", b"d"]


@on_redis
async def test_a_cursor_inside_a_held_line_follows_too(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    first = replace(_chunk(0, b"a"), end=Cursor(0, skip=1))
    second = replace(_chunk(0, b"b"), start=Cursor(0, skip=1), end=Cursor(99))
    for chunk in (first, first, second, second):
        await store.append("A", ATTEMPT, chunk)
    assert await _log(store, "A") == [b"a", b"b"]


async def _long_log(store: Store, chunks: int) -> list[bytes]:
    """Its lines: one to five in a chunk."""
    await store.create(_job("A"))
    written: list[bytes] = []
    offset = 0
    for number in range(chunks):
        found = [f"{number}.{line}".encode() for line in range(number % 5 + 1)]
        chunk = _chunk(offset, *found)
        await store.append("A", ATTEMPT, chunk)
        offset = chunk.end.offset
        written += found
    return written


@on_redis
async def test_a_long_log_is_right_from_every_index_on(store: Store, server: RedisServer) -> None:
    written = await _long_log(store, 300)
    for index in range(-len(written) - 2, len(written) + 3):
        assert await _log(store, "A", index) == (written[index:] if index >= -len(written) else written), index


@on_redis
async def test_pages_of_any_size_make_the_same_log(store: Store, server: RedisServer) -> None:
    written = await _long_log(store, 20)
    for page in range(1, 23):
        for index in (0, 1, 17, len(written) - 1, -1, -20):
            assert await _log(store, "A", index, page) == written[index:]


@on_redis
async def test_reading_begins_with_the_chunk_that_holds_the_index(store: Store, server: RedisServer) -> None:
    written = await _long_log(store, 100)
    chunks = store.log("A", len(written) - 1)
    assert await anext(chunks) == (len(written) - 1, b"")
    number, chunk = await anext(chunks)
    assert number + sum(block.lines for block, _ in lines(chunk)) == len(written)
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


@on_redis
async def test_an_index_beyond_all_numbers_is_past_the_end(store: Store, server: RedisServer) -> None:
    written = await _long_log(store, 3)
    for index in (len(written), 2**31, 2**53, 2**63, 10**40):
        assert await _log(store, "A", index) == []
        assert await _log(store, "A", -index) == written


@on_redis
async def test_a_job_without_lines_has_an_empty_log(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    for index in (-1, 0, 1):
        assert await _log(store, "A", index) == []


@on_redis
async def test_bytes_in_a_log_are_kept_as_they_are(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    line = bytes(byte for byte in range(256) if byte != 10) + b"."
    await store.append("A", ATTEMPT, _chunk(0, line))
    assert await _log(store, "A") == [line]


# --- outputs


@on_redis
async def test_a_small_output_is_kept_as_it_is(store: Store, server: RedisServer) -> None:
    await store.create(_job("A"))
    assert await store.small_output("A") is None
    for output in (b"", b"\0\xff\r\n", b"x" * SMALL_OUTPUT):
        await store.keep_output("A", output)
        assert await store.small_output("A") == output


# --- a Redis that fails


def test_a_redis_that_is_gone_is_unavailable_and_comes_back(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis("--appendonly", "yes", "--appendfsync", "always")

    async def tried(store: Store) -> None:
        await store.create(_job("A"))
        server.kill()
        for call in (store.ping(), store.get("A"), store.create(_job("B")), store.doom("A"), anext(store.ids()), anext(store.log("A", 0))):
            with pytest.raises(Unavailable, match="Redis"):
                await call
        server.start()
        assert (await store.get("A")).id == "A"
        assert await _ids(store) == ["A"]

    with_store(server.url, tried)


def test_a_full_redis_takes_nothing_and_says_so(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis("--maxmemory-policy", "noeviction")

    async def tried(store: Store) -> None:
        await store.create(_job("A"))
        with server.client() as client:
            client.config_set("maxmemory", 1)
        with pytest.raises(Unavailable, match="Redis"):
            await store.create(_job("B"))
        assert await _ids(store) == ["A"]
        assert await store.load("B") is None

    with_store(server.url, tried)


def test_more_callers_than_connections_wait_their_turn(redis_server: RedisServer) -> None:
    redis_server.flush()

    async def tried(store: Store) -> None:
        await asyncio.gather(*(store.create(_job(f"{number}")) for number in range(1000)))
        assert len(await _ids(store)) == 1000

    with_store(redis_server.url, tried)


def test_a_write_whose_reply_was_lost_happens_once(make_redis: Callable[..., RedisServer]) -> None:
    """The client itself sends a command again when the connection breaks after Redis has done it."""
    server = make_redis()

    async def tried(store: Store) -> None:
        await store.create(_job("A"))
        for number in range(30):
            cut = asyncio.create_task(_cut_connections(server, number / 10_000))
            with suppress(Stale, Unavailable):
                await store.append("A", (number, 1), _chunk(0, b"%d" % number))
            await cut
        cursors = await store.cursors("A")
        assert await _log(store, "A") == [b"%d" % step for step, _ in sorted(cursors)]

    with_store(server.url, tried)


async def _cut_connections(server: RedisServer, after: float) -> None:
    await asyncio.sleep(after)

    def cut() -> None:
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)

    await asyncio.to_thread(cut)
