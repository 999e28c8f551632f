"""A Redis that fails: gone, full, read-only, paused; or whose reply is lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

# --- a Redis that fails


def test_a_redis_that_is_gone_is_unavailable_and_comes_back(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis("--appendonly", "yes", "--appendfsync", "always")

    async def tried(store: Store) -> None:
        await store.create(a_job("A"))
        server.kill()
        for call in (store.ping(), store.get("A"), store.create(a_job("B")), store.doom("A"), anext(store.ids()), anext(store.log("A", 0))):
            with pytest.raises(Unavailable, match="Redis"):
                await call
        server.start()
        assert (await store.get("A")).id == "A"
        assert await ids(store) == ["A"]

    with_store(server.url, tried)


def test_a_full_redis_takes_nothing_and_says_so(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis("--maxmemory-policy", "noeviction")

    async def tried(store: Store) -> None:
        await store.create(a_job("A"))
        with server.client() as client:
            client.config_set("maxmemory", 1)
        with pytest.raises(Unavailable, match="Redis"):
            await store.create(a_job("B"))
        assert await ids(store) == ["A"]
        assert await store.load("B") is None

    with_store(server.url, tried)


def test_more_callers_than_connections_wait_their_turn(redis_server: RedisServer) -> None:
    redis_server.flush()

    async def tried(store: Store) -> None:
        await asyncio.gather(*(store.create(a_job(f"{number}")) for number in range(1000)))
        assert len(await ids(store)) == 1000

    with_store(redis_server.url, tried)


def test_a_write_whose_reply_was_lost_happens_once(make_redis: Callable[..., RedisServer]) -> None:
    """The client itself sends a command again when the connection breaks after Redis has done it."""
    server = make_redis()

    async def tried(store: Store) -> None:
        await store.create(a_job("A"))
        for number in range(30):
            cut = asyncio.create_task(_cut_connections(server, number / 10_000))
            with suppress(Stale, Unavailable):
                await store.append("A", (number, 1), a_chunk(0, b"%d" % number), 0)
            await cut
        cursors = await store.cursors("A")
        assert await log_of(store, "A") == [b"%d" % step for step, _ in sorted(cursors)]

    with_store(server.url, tried)


async def _cut_connections(server: RedisServer, after: float) -> None:
    await asyncio.sleep(after)

    def cut() -> None:
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)

    await asyncio.to_thread(cut)
