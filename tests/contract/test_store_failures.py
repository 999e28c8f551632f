"""A Redis that fails: gone, full, read-only, paused; and replies that are lost, with the client sending the same again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from store_kit import ATTEMPT, a_chunk, a_job, begun, ended, ids, keys, on_redis

from dray.errors import FieldError, Invalid, Unavailable
from dray.record import Phase
from dray.settings import Runs
from dray.store import Filter, IdempotencyKey, Kept, Laid, Store
from dray.store.together import PATIENCE
from kit.api import with_store
from kit.proxy import RedisProxy
from kit.redis import RedisServer


def _calls(store: Store) -> dict[str, Callable[[], Awaitable[object]]]:
    job = replace(a_job("A"), fence=1, version=2)
    return {
        "create": lambda: store.create(a_job("new")),
        "get": lambda: store.get("A"),
        "save": lambda: store.save(job),
        "doom": lambda: store.doom("A"),
        "cancel": lambda: store.cancel("A"),
        "hold": lambda: store.hold("A", True),
        "retire": lambda: store.retire(job),
        "forget": lambda: store.forget(job),
        "append": lambda: store.append("A", ATTEMPT, a_chunk(0, b"x"), 1),
        "keep_output": lambda: store.keep_output(job, 0, b"x"),
        "uploaded_nothing": lambda: store.uploaded_nothing("A"),
        "abandoned": lambda: store.abandoned(9),
        "small_output": lambda: store.small_output("A", 0),
        "enlist": lambda: store.enlist("me", "e", 60),
        "begin": lambda: store.begin("me", "e"),
        "adopt": lambda: store.adopt("me", "e", 60),
        "mine": lambda: store.mine("me"),
        "active": lambda: store.active("e"),
        "ids": lambda: anext(store.ids()),
        "page": lambda: store.page(Filter(), None, 9),
        "counts": store.counts,
        "outdated": lambda: store.outdated(1, 1, 9),
        "expired": lambda: store.expired(9),
        "log": lambda: anext(store.log("A", 0)),
        "read": lambda: store.read("A", 0, 9),
        "stderr": lambda: store.stderr("A", ATTEMPT),
        "cursors": lambda: store.cursors("A"),
        "preflight": lambda: store.preflight(a_job("A").spec, 9),
        "asked": store.asked,
        "news": lambda: anext(store.news()),
        "wakes": lambda: anext(store.wakes()),
        "ping": store.ping,
    }


def test_a_redis_that_is_gone_is_unavailable_to_every_call_and_comes_back(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis("--appendonly", "yes", "--appendfsync", "always")

    async def tried(store: Store) -> None:
        (job,) = await begun(store, "A")
        server.kill()
        for name, call in _calls(store).items():
            with pytest.raises(Unavailable, match="Redis"):
                pytest.fail(f"{name}: {await call()}")
        server.start()
        assert await store.get("A") == job
        assert await ids(store) == ["A"]

    with_store(server.url, tried)


def test_a_redis_that_is_paused_makes_nobody_wait_long(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis()

    async def tried(store: Store) -> None:
        await begun(store, "A")
        waits = [call for name, call in _calls(store).items() if name not in ("news", "wakes")]
        with _paused(server):
            async with asyncio.timeout(2 * PATIENCE):
                results = await asyncio.gather(*(call() for call in waits), *(store.get("A") for _ in range(200)), return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
        assert (await store.get("A")).id == "A"

    with_store(server.url, tried)


def test_a_job_that_was_posted_to_a_paused_redis_is_there_once_or_not_at_all(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis()

    async def tried(store: Store) -> None:
        await store.create(a_job("A"))
        with _paused(server), pytest.raises(Unavailable):
            await store.create(a_job("B"))
        await store.create(a_job("B"))
        assert await ids(store) == ["A", "B"]

    with_store(server.url, tried)


@contextmanager
def _paused(server: RedisServer) -> Iterator[None]:
    server.process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.signal(signal.SIGCONT)


def test_a_full_redis_takes_nothing_new_and_still_lets_jobs_be_deleted(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis("--maxmemory-policy", "noeviction")

    async def tried(store: Store) -> None:
        job, _ = await begun(store, "A", "C")
        before = await _contents(store)
        with server.client() as client:
            client.config_set("maxmemory", 1)
        takes = ("create", "save", "cancel", "hold", "append", "keep_output", "enlist")
        for name, call in _calls(store).items():
            if name in takes:
                with pytest.raises(Unavailable, match="Redis"):
                    pytest.fail(f"{name}: {await call()}")
        assert await _contents(store) == before
        await store.doom("A")
        assert await ids(store) == ["C"]
        await store.forget(job)
        assert await store.mine("me") == ["C"]

    with_store(server.url, tried)


def test_a_redis_that_is_only_a_replica_changes_nothing_and_says_so(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis()

    async def tried(store: Store) -> None:
        (job,) = await begun(store, "A")
        before = await _contents(store)
        with server.client() as client:
            client.replicaof("127.0.0.1", "1")
            client.config_set("replica-serve-stale-data", "yes")
            writes = ("create", "save", "doom", "cancel", "hold", "retire", "append", "keep_output", "enlist", "preflight", "asked")
            for name, call in _calls(store).items():
                if name in writes:
                    with pytest.raises(Unavailable, match="Redis"):
                        pytest.fail(f"{name}: {await call()}")
            assert await store.get("A") == job
            assert await _contents(store) == before
            client.replicaof("no", "one")
        await store.save(ended(job))

    with_store(server.url, tried)


@on_redis
async def test_more_callers_than_connections_wait_their_turn(store: Store, server: RedisServer) -> None:
    await asyncio.gather(*(store.create(a_job(f"{number}")) for number in range(1000)))
    assert len(await ids(store)) == 1000


# --- lost replies


def test_a_lost_reply_to_any_write_makes_nothing_twice(redis_server: RedisServer) -> None:
    """The same story with and without: what comes back, and what is in Redis after each step of it, is the same."""
    redis_server.flush()
    plain = with_store(redis_server.url, lambda store: _told(store, lambda: None))
    redis_server.flush()
    proxy = RedisProxy(redis_server.url)
    lost = with_store(proxy.url, lambda store: _told(store, proxy.lose_next))
    proxy.close()
    assert lost == plain
    assert proxy.lost == len(plain)


async def _told(store: Store, before_each: Callable[[], None]) -> list[tuple[str, object, object]]:
    seen: list[tuple[str, object, object]] = []
    for name, act in _story(store):
        before_each()
        seen.append((name, await act(), await _contents(store)))
    return seen


def _story(store: Store) -> Iterator[tuple[str, Callable[[], Awaitable[object]]]]:
    """Every write, in an order in which each does something."""
    key = IdempotencyKey.of("key", "request")

    async def loaded(job_id: str) -> Any:
        return await store.load(job_id)

    async def save(job_id: str, **changed: Any) -> object:
        return await store.save(replace(await loaded(job_id), **changed))

    async def append(at: int, text: bytes) -> None:
        await store.append("A", ATTEMPT, a_chunk(at, text), (await loaded("A")).fence)

    after = a_chunk(0, b"first").end.offset
    yield "enlist", lambda: store.enlist("me", "e", 60)
    yield "create", lambda: store.create(a_job("A"))
    yield "create with a key", lambda: store.create(a_job("B", labels={"a": "1"}), key)
    yield "create again", lambda: store.create(a_job("C"), key)
    yield "hold", lambda: store.hold("B", True)
    yield "begin", lambda: store.begin("me", "e")
    yield "save", lambda: save("A", phase=Phase.RUNNING)
    yield "append", lambda: append(0, b"first")
    yield "append more", lambda: append(after, b"second")
    yield "cancel", lambda: store._cancel("A", False)  # noqa: SLF001 (the write of it)
    yield "cancel again", lambda: store._cancel("A", True)  # noqa: SLF001
    yield "keep an output", lambda: _keep(store, "A")
    yield "rerun", lambda: store.create(a_job("D"), laid=Laid(Kept("A", (0,))))
    yield "release", lambda: store.hold("B", False)
    yield "begin the one released", lambda: store.begin("me", "e")
    yield "create for a backend", lambda: store.create(a_job("E", backend="docker", ttlSecondsAfterFinished=0))
    yield "hold it", lambda: store.hold("E", True)
    yield "release it", lambda: store.hold("E", False)
    yield "end it", lambda: save("E", phase=Phase.ERROR, finished_at=7)
    yield "doom it", lambda: store.doom("E")
    yield "enlist another", lambda: store.enlist("you", "e", 60)
    yield "dismiss", lambda: store.dismiss("me")
    yield "adopt", lambda: store.adopt("you", "e", 60)
    yield "end", lambda: save("A", phase=Phase.COMPLETE, finished_at=5)
    yield "end what waits", lambda: save("D", phase=Phase.ERROR, finished_at=6)
    yield "retire", lambda: _with(store, "A", store.retire)
    yield "doom", lambda: store.doom("A")
    yield "adopt one", lambda: store.adopt_one("A", "you", "e")
    yield "forget", lambda: _with(store, "A", store.forget)


async def _keep(store: Store, job_id: str) -> None:
    await _with(store, job_id, lambda job: store.keep_output(job, 0, b"output"))


async def _with(store: Store, job_id: str, use: Callable[[Any], Awaitable[None]]) -> None:
    await use(await store.load(job_id))


async def _contents(store: Store) -> dict[str, object]:
    """All that is in Redis, but for nonces and times."""
    connection = store._redis  # noqa: SLF001 (as it lies there)
    found: dict[str, object] = {}
    for key in sorted(await connection.keys("*")):
        match await connection.type(key):
            case b"hash":
                fields = await connection.hgetall(key)
                found[key] = {name: value for name, value in fields.items() if name not in (b"saved", b"doomed")}
            case b"zset":
                found[key] = await connection.zrange(key, 0, -1, withscores=key != b"dray:operators")
            case b"stream":
                found[key] = await connection.xrange(key)
            case _:
                found[key] = await connection.get(key)
    return {key: content for key, content in found.items() if key not in (b"dray:begun", b"dray:adopted")}  # type: ignore[comparison-overlap]


def test_all_that_a_lost_connection_carried_is_done_once(redis_server: RedisServer) -> None:
    redis_server.flush()
    proxy = RedisProxy(redis_server.url)

    async def tried(store: Store) -> None:
        await store.create(a_job("A"))
        proxy.lose_next()
        made = [f"{number}" for number in range(200)]
        assert await asyncio.gather(*(store.create(a_job(name)) for name in made)) == made
        assert await ids(store) == ["A", *made]

    with_store(proxy.url, tried)
    proxy.close()
    assert proxy.lost == 1


def test_a_question_whose_reply_was_lost_is_answered_all_the_same(redis_server: RedisServer) -> None:
    redis_server.flush()
    proxy = RedisProxy(redis_server.url)

    async def tried(asker: Store) -> None:
        answerer = Store(redis_server.url)
        await answerer.enlist("me", "e", 60)
        proxy.lose_next()
        asking = asyncio.create_task(asker.preflight(a_job("A").spec, 20))
        asked = await answerer.asked()
        assert asked is not None
        await answerer.answer(asked[0], ("pin",))
        assert await asking == ("pin",)
        await answerer.close()

    with_store(proxy.url, tried)
    proxy.close()
    assert proxy.lost == 1


# --- preflight


@on_redis
async def test_a_question_goes_to_one_operator_and_its_answer_to_who_asked(store: Store, server: RedisServer) -> None:
    await store.enlist("me", "e", 60)
    specs = [a_job("A", steps=number + 1).spec for number in range(5)]
    asking = [asyncio.create_task(store.preflight(spec, 20)) for spec in specs]
    for _ in specs:
        asked = await store.asked()
        assert asked is not None
        question, spec = asked
        await store.answer(question, tuple(f"pin of {number}" for number in range(len(spec.steps))))
    assert [len(pins) for pins in await asyncio.gather(*asking)] == [1, 2, 3, 4, 5]
    assert await store.asked() is None


@on_redis
async def test_a_question_about_a_job_for_a_backend_goes_to_an_operator_of_that_one(store: Store, server: RedisServer) -> None:
    await store.enlist("d", "e", 60)
    spec = a_job("A", backend="kubernetes").spec
    with pytest.raises(Unavailable, match="no operator of backend kubernetes is there"):
        await store.preflight(spec, 20)
    await store.enlist("k", "c", 60, Runs.KUBERNETES)
    asking = asyncio.create_task(store.preflight(spec, 20))
    assert await store.asked(Runs.DOCKER) is None
    asked = await store.asked(Runs.KUBERNETES)
    assert asked is not None
    await store.answer(asked[0], ("pin",))
    assert await asking == ("pin",)


@on_redis
async def test_what_an_operator_refuses_is_told_field_by_field(store: Store, server: RedisServer) -> None:
    await store.enlist("me", "e", 60)
    for answer in (Invalid([FieldError("steps[0].source", "no such image")]), Unavailable("the registry is down")):
        asking = asyncio.create_task(store.preflight(a_job("A").spec, 20))
        asked = await store.asked()
        assert asked is not None
        await store.answer(asked[0], answer)
        with pytest.raises(type(answer), match=str(answer).replace("[", r"\[")):
            await asking


@on_redis
async def test_without_an_operator_that_answers_preflight_is_unavailable_and_leaves_no_question(store: Store, server: RedisServer) -> None:
    with pytest.raises(Unavailable, match="no operator"):
        await store.preflight(a_job("A").spec, 20)
    await store.enlist("me", "e", 60)
    with pytest.raises(Unavailable, match="no operator answered within 0 seconds"):
        await store.preflight(a_job("A").spec, 0.2)
    assert "dray:questions" not in keys(server)
