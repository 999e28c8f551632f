"""Lists on a real Redis: all jobs, filtered and in pages, those to be removed, and how many there are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from store_kit import NOON, a_job, begun, ended, ids, keys, on_redis

from dray.reason import Reason
from dray.record import Phase, StepState
from dray.store import Filter, Store, Summary
from kit.redis import RedisServer

ALL = Filter()


async def _create(store: Store, names: Iterable[str], **given: Any) -> None:
    for name in names:
        await store.create(a_job(name, **given))


async def _pages(store: Store, wanted: Filter, limit: int, newest: bool = False) -> list[str]:
    """The ids on all pages."""
    found: list[str] = []
    page = await store.page(wanted, None, limit, newest)
    while page.cursor is not None:
        assert len(page.jobs) == limit
        found += [job.id for job in page.jobs]
        page = await store.page(wanted, page.cursor, limit, newest)
    return found + [job.id for job in page.jobs]


@on_redis
async def test_jobs_are_listed_oldest_first_across_pages(store: Store, server: RedisServer) -> None:
    names = [f"{number * 7919 % 12000:05}" for number in range(12000)]
    for start in range(0, len(names), 50):
        await asyncio.gather(*(store.create(a_job(name)) for name in names[start : start + 50]))
    with server.client() as client:
        scores = {name: client.zscore("dray:jobs", name) for name in names}
    pages = [page async for page in store.ids()]
    assert [len(page) for page in pages] == [5000, 5000, 2000]
    in_order = sorted(names, key=lambda name: scores[name] or 0)
    assert [job_id for page in pages for job_id in page] == in_order
    assert await _pages(store, ALL, 1000) == in_order


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 100])
@pytest.mark.parametrize("newest", [False, True])
def test_pages_of_any_size_show_each_job_once_in_order(redis_server: RedisServer, limit: int, newest: bool) -> None:
    @on_redis
    async def tested(store: Store, server: RedisServer) -> None:
        assert await _pages(store, ALL, limit, newest) == []
        await _create(store, "GFEDCBA")
        assert await _pages(store, ALL, limit, newest) == list("ABCDEFG" if newest else "GFEDCBA")

    tested(redis_server)


@on_redis
async def test_a_summary_says_how_far_a_job_is(store: Store, server: RedisServer) -> None:
    await store.enlist("me", "e", 60)
    await store.create(a_job("A", steps=2, labels={"team": "a"}))
    assert (await store.page(ALL, None, 9)).jobs == [Summary("A", "ä", {"team": "a"}, Phase.WAITING, NOON, None, None, 0, 2)]
    await store.begin("me", "e")
    job = await store.get("A")
    failed = replace(ended(job, Phase.ERROR), steps=(StepState(Phase.COMPLETE), StepState(Phase.ERROR)), reason=Reason.LOST)
    await store.save(failed)
    assert (await store.page(ALL, None, 9)).jobs == [Summary("A", "ä", {"team": "a"}, Phase.ERROR, NOON, NOON + 2, Reason.LOST, 1, 2)]


@on_redis
async def test_filters_let_through_what_fits_all_of_them(store: Store, server: RedisServer) -> None:
    names = ["one", "two", "", "o\nne", "ö"]
    labels = [{}, {"a": "1"}, {"a": "2"}, {"a": "1", "b": "1"}, {"b": "", "x.y/c": "1"}]
    jobs = [a_job(f"{number:02}", name=names[number % 5], labels=labels[number // 5 % 5]) for number in range(50)]
    await store.enlist("me", "e", 60)
    for job in jobs:
        await store.create(job)
    phases = {}
    for number in range(30):
        taken = await store.begin("me", "e")
        assert taken is not None
        phases[taken] = (Phase.RUNNING, Phase.COMPLETE, Phase.ERROR)[number % 3]
        await store.save(replace(await store.get(taken), phase=phases[taken], finished_at=NOON))

    wanted = [Filter(status, name, held) for status in (None, Phase.RUNNING, Phase.COMPLETE, Phase.ERROR) for name in (None, "one", "o\nne", "ö", "none")
              for held in ((), ("a",), ("a=1",), ("a", "a=1"), ("a=1", "b"), ("b=",), ("x.y/c=1", "b"), ("a=1", "a=2"), ("none",))]  # fmt: skip
    for one in wanted:
        fits = [
            job.id
            for job in jobs
            if one.status in (None, phases.get(job.id, Phase.RUNNING))
            and one.name in (None, job.spec.name)
            and all(label in job.spec.labels or label in {f"{key}={value}" for key, value in job.spec.labels.items()} for label in one.labels)
        ]
        assert await _pages(store, one, 4) == fits, one
        assert await _pages(store, one, 4, newest=True) == fits[::-1], one


@on_redis
async def test_jobs_that_come_and_go_between_pages_disturb_no_other(store: Store, server: RedisServer) -> None:
    chance = random.Random(7)
    stay = [f"stay {number:03}" for number in range(200)]
    others = [f"other {number:03}" for number in range(200)]
    order = sorted(stay + others, key=lambda _: chance.random())
    for name in order:
        await store.create(a_job(name, labels={"a": "1"}))
    for newest in (False, True):
        found: list[str] = []
        cursor, first = None, True
        while cursor is not None or first:
            page = await store.page(Filter(labels=("a",)), cursor, 9, newest)
            found += [job.id for job in page.jobs]
            cursor, first = page.cursor, False
            if others:
                await store.doom(others.pop(chance.randrange(len(others))))
            await store.create(a_job(f"new {newest} {len(found):03}", labels={"a": "1"}))
        assert len(found) == len(set(found))
        kept = [name for name in found if name in set(stay)]
        in_order = [name for name in order if name in set(stay)]
        assert kept == (in_order[::-1] if newest else in_order)


@on_redis
async def test_a_filter_that_lets_through_few_of_many_finds_them_all(store: Store, server: RedisServer) -> None:
    """More entries than one call looks at lie between them."""
    rare = {0, 1, 6000, 11_998, 11_999}
    for start in range(0, 12_000, 100):
        await asyncio.gather(
            *(
                store.create(a_job(f"{number:05}", labels={"a": "1"} | ({"b": "1"} if number not in rare else {"c": "1"})))
                for number in range(start, start + 100)
            )
        )
    with server.client() as client:
        client.zunionstore("dray:label:c", ["dray:label:a"])  # so that no index is small
    assert await _pages(store, Filter(labels=("a", "b", "c")), 1000) == [job_id for job_id in await ids(store) if int(job_id) not in rare]
    assert await _pages(store, Filter(labels=("b", "none")), 1000) == []


@on_redis
async def test_a_deleted_job_is_in_no_list(store: Store, server: RedisServer) -> None:
    await _create(store, "AB", labels={"a": "1"})
    await store.doom("A")
    for wanted in (ALL, Filter(name="ä"), Filter(labels=("a=1",)), Filter(status=Phase.RUNNING)):
        assert await _pages(store, wanted, 9) == ["B"]


# --- retention


@on_redis
async def test_the_first_to_end_are_the_first_to_be_removed(store: Store, server: RedisServer) -> None:
    jobs = await begun(store, *"ABCDE")
    for job, at in zip(jobs[:4], (40, 10, 30, 20), strict=True):
        await store.save(ended(job, at=at))
    assert await store.outdated(None, None, 9) == []
    assert await store.outdated(None, 4, 9) == []
    assert await store.outdated(None, 2, 9) == ["B", "D"]
    assert await store.outdated(None, 0, 3) == ["B", "D", "C"]
    await store.doom("B")
    assert await store.outdated(None, 0, 9) == ["D", "C", "A"]


@on_redis
async def test_jobs_are_outdated_when_they_ended_long_enough_ago(store: Store, server: RedisServer) -> None:
    jobs = await begun(store, *"ABC")
    with server.client() as client:
        seconds, microseconds = client.time()
    for job, ago in zip(jobs, (100, 300, 200), strict=True):
        await store.save(replace(ended(job), finished_at=int(seconds - ago) * 1_000_000 + int(microseconds)))
    assert await store.outdated(350.0, None, 9) == []
    assert await store.outdated(150.0, None, 9) == ["B", "C"]
    assert await store.outdated(150.0, None, 1) == ["B"]
    assert await store.outdated(150.0, 2, 9) == ["B", "C"]
    assert await store.outdated(250.0, 0, 9) == ["B", "C", "A"]
    assert await store.outdated(0.0, None, 9) == ["B", "C", "A"]


@on_redis
async def test_jobs_expire_so_many_seconds_after_their_end_as_they_said(store: Store, server: RedisServer) -> None:
    lasting = {"A": 200, "B": 0, "C": 2**31 - 1, "D": 50, "E": 0, "F": None}
    await store.enlist("me", "e", 60)
    with server.client() as client:
        ago = int(client.time()[0] - 100) * 1_000_000
    for name, seconds in lasting.items():
        await store.create(a_job(name, ttlSecondsAfterFinished=seconds))
        job = await store.get(name)
        if name != "E":
            await store.save(replace(ended(job), finished_at=ago))
    assert await store.expired(9) == ["B", "D"]
    assert await store.expired(1) == ["B"]
    await store.doom("B")
    assert await store.expired(9) == ["D"]
    await store.cancel("E")
    assert sorted(await store.expired(9)) == ["D", "E"]


# --- counts


@on_redis
async def test_jobs_are_counted_by_status(store: Store, server: RedisServer) -> None:
    assert await store.counts() == ({Phase.RUNNING: 0, Phase.COMPLETE: 0, Phase.ERROR: 0}, 0, None)
    first, second, _ = await begun(store, *"ABC")
    await store.save(ended(first))
    await store.save(ended(second, Phase.ERROR))
    await store.create(a_job("D"))
    await store.create(replace(a_job("E"), created_at=NOON + 1))
    assert await store.counts() == ({Phase.RUNNING: 3, Phase.COMPLETE: 1, Phase.ERROR: 1}, 2, NOON)


@on_redis
async def test_jobs_for_one_backend_count_among_those_that_wait(store: Store, server: RedisServer) -> None:
    for number, backend in enumerate(("kubernetes", "docker", None)):
        await store.create(replace(a_job(f"{number}", backend=backend), created_at=NOON + number))
    assert await store.counts() == ({Phase.RUNNING: 3, Phase.COMPLETE: 0, Phase.ERROR: 0}, 3, NOON)
    await store.doom("0")
    assert (await store.counts())[1:] == (2, NOON + 1)


# --- an earlier version's


@on_redis
async def test_jobs_of_an_earlier_version_are_found_after_the_upgrade(store: Store, server: RedisServer) -> None:
    (done, *_) = await begun(store, *"ABC")
    await store.save(ended(done))
    everything = {key: await _content(store, key) for key in keys(server)}
    with server.client() as client:
        for key in keys(server):
            if key.startswith(("dray:status", "dray:name", "dray:finished")):
                client.delete(key)
        for name in "ABC":
            client.hdel(f"dray:job:{name}", "brief", "indexes", "ended")
    for _ in range(2):
        await store.upgrade()
    assert {key: await _content(store, key) for key in keys(server) - {"dray:format"}} == everything


async def _content(store: Store, key: str) -> object:
    connection = store._redis  # noqa: SLF001 (as it lies there)
    match await connection.type(key):
        case b"hash":
            return await connection.hgetall(key)
        case b"zset":
            return await connection.zrange(key, 0, -1, withscores=True)
        case _:
            return await connection.get(key)
