"""Leases on a real Redis: whose a job is, when it is taken over, and that an earlier owner cannot write any more."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from store_kit import ATTEMPT, a_chunk, a_job, begun, ended, on_redis

from dray.errors import Stale
from dray.record import Job, Phase
from dray.settings import Runs
from dray.store import Store
from kit.redis import RedisServer

SOON = 0.05  # seconds: of a lease that is to run out


async def _ran_out(store: Store, operator: str, engine: str = "e") -> None:
    """Its lease has just ended."""
    await store.enlist(operator, engine, 0)
    await asyncio.sleep(0.01)
    assert operator not in await store.operators()


async def _loaded(store: Store, job_id: str) -> Job:
    job = await store.load(job_id)
    assert job is not None
    return job


@on_redis
async def test_an_operator_lives_for_its_lease_and_is_told_when_it_ran_out(store: Store, server: RedisServer) -> None:
    assert await store.operators() == []
    assert await store.enlist("me", "e", 60)
    assert await store.enlist("me", "e", SOON)
    assert await store.operators() == ["me"]
    await asyncio.sleep(2 * SOON)
    assert await store.operators() == []
    assert not await store.enlist("me", "e", 60)
    assert await store.enlist("me", "e", 60)
    assert await store.operators() == ["me"]
    await store.dismiss("me")
    await store.dismiss("nobody")
    assert await store.operators() == []


@on_redis
async def test_waiting_jobs_are_begun_in_order_of_arrival_each_by_one(store: Store, server: RedisServer) -> None:
    names = [f"{number * 37 % 101:03}" for number in range(100)]
    for name in names:
        await store.create(a_job(name))
    for operator in ("me", "you"):
        await store.enlist(operator, "e", 60)
    begun_ids = [await store.begin(operator, "e") for _ in range(50) for operator in ("me", "you")]
    assert begun_ids == names
    assert await store.begin("me", "e") is None
    assert (await store.mine("me"), await store.mine("you")) == (names[::2], names[1::2])


@on_redis
async def test_many_who_begin_at_once_get_different_jobs(store: Store, server: RedisServer) -> None:
    for number in range(50):
        await store.create(a_job(f"{number}"))
    operators = [f"operator {number}" for number in range(10)]
    for operator in operators:
        await store.enlist(operator, "e", 60)
    found = await asyncio.gather(*(store.begin(operator, "e") for operator in operators * 10))
    taken = [job_id for job_id in found if job_id is not None]
    assert sorted(taken) == sorted(f"{number}" for number in range(50))


@on_redis
async def test_a_job_that_was_begun_waits_for_its_owner_to_save_it(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    await store.enlist("me", "e", 60)
    await store.begin("me", "e")
    job = await store.get("A")
    assert job == replace(a_job("A"), owner="me", fence=1, version=1)
    assert (await store.save(replace(job, phase=Phase.RUNNING))).version == 2


@on_redis
async def test_who_has_no_lease_begins_and_adopts_nothing(store: Store, server: RedisServer) -> None:
    await begun(store, "A")
    await store.create(a_job("B"))
    await _ran_out(store, "me")
    for operator in ("me", "stranger"):
        assert await store.begin(operator, "e") is None
        assert await store.adopt(operator, "e", 60) == []
    assert not await store.adopt_one("A", "stranger", "e")
    assert await store.mine("me") == ["A"]


# --- taking over


@on_redis
async def test_jobs_of_one_that_is_gone_go_to_another_on_the_same_engine_at_once(store: Store, server: RedisServer) -> None:
    await begun(store, "A", "B")
    await store.enlist("you", "e", 60)
    assert await store.adopt("you", "e", 0) == []
    await _ran_out(store, "me")
    assert await store.adopt("you", "e", 0) == ["A", "B"]
    assert await store.adopt("you", "e", 0) == []
    assert (await store.mine("me"), await store.mine("you")) == ([], ["A", "B"])
    assert [(job.owner, job.fence, job.version) for job in [await store.get("A"), await store.get("B")]] == [("you", 3, 3), ("you", 4, 3)]


@on_redis
async def test_one_that_ends_in_good_order_hands_its_jobs_on_at_once(store: Store, server: RedisServer) -> None:
    await begun(store, "A")
    await store.enlist("you", "e", 60)
    await store.dismiss("me")
    assert await store.adopt("you", "e", 0) == ["A"]


@on_redis
async def test_another_engine_takes_over_only_after_a_time_or_never(store: Store, server: RedisServer) -> None:
    await begun(store, "A")
    await store.enlist("you", "another", 60)
    await _ran_out(store, "me")
    assert await store.adopt("you", "another", 0) == []
    assert await store.adopt("you", "another", 60) == []
    await asyncio.sleep(SOON)
    assert await store.adopt("you", "another", SOON / 2) == ["A"]
    assert await store.active("e") == {}
    assert await store.active("another") == {"A": None}


@on_redis
async def test_of_two_who_would_take_over_one_does(store: Store, server: RedisServer) -> None:
    await begun(store, *"ABCDEFGH")
    await _ran_out(store, "me")
    for operator in ("you", "they"):
        await store.enlist(operator, "e", 60)
    yours, theirs = await asyncio.gather(store.adopt("you", "e", 0), store.adopt("they", "e", 0))
    assert sorted(yours + theirs) == list("ABCDEFGH")


@on_redis
async def test_one_that_comes_back_in_time_keeps_its_jobs(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    await _ran_out(store, "me")
    assert not await store.enlist("me", "e", 60)
    await store.enlist("you", "e", 60)
    assert await store.adopt("you", "e", 0) == []
    await store.save(ended(job))


@on_redis
async def test_many_jobs_are_taken_over_bit_by_bit(store: Store, server: RedisServer) -> None:
    names = [f"{number:03}" for number in range(230)]
    await begun(store, *names)
    await _ran_out(store, "me")
    await store.enlist("you", "e", 60)
    found = [await store.adopt("you", "e", 0) for _ in range(4)]
    assert [len(taken) for taken in found] == [100, 100, 30, 0]
    assert [job_id for taken in found for job_id in taken] == names


@on_redis
async def test_a_deleted_job_that_is_nobodys_is_anybodys(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    await store.retire(await store.save(ended(job)))
    await _ran_out(store, "me")
    await store.enlist("you", "another", 60)
    assert await store.adopt("you", "another", 60) == []
    assert not await store.adopt_one("A", "you", "another")
    await store.doom("A")
    assert "A" in await store.active("any")
    assert await store.adopt_one("A", "you", "another")
    assert await store.adopt_one("A", "you", "another")
    await store.enlist("they", "another", 60)
    assert not await store.adopt_one("A", "they", "another")
    assert await store.mine("you") == ["A"]
    await store.forget(await _loaded(store, "A"))
    assert await store.mine("you") == []


@on_redis
async def test_an_active_job_of_an_earlier_version_is_anybodys(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    with server.client() as client:
        client.zrem("dray:waiting", "A")
        client.zadd("dray:active", {"A": 1})
        client.hset("dray:job:A", "state", '{"phase":"running","pod":"p","created_at":1,"steps":[["running",1,0,null,5,null,null,null]]}')
    await store.enlist("me", "e", 60)
    assert await store.active("e") == {"A": "p"}
    assert await store.adopt("me", "e", 0) == ["A"]
    job = await store.get("A")
    assert (job.pod, job.owner, job.fence) == ("p", "me", 1)


@on_redis
async def test_the_pods_that_an_engine_may_have_are_those_of_its_operators_alive_or_not(store: Store, server: RedisServer) -> None:
    (mine,) = await begun(store, "A")
    await store.save(replace(mine, pod="pod of A"))
    await begun(store, "B", operator="you")
    await begun(store, "C", operator="they", engine="another")
    await _ran_out(store, "you")
    assert await store.active("e") == {"A": "pod of A", "B": None}
    assert await store.active("another") == {"C": None}


# --- backends


@on_redis
async def test_a_job_that_names_a_backend_is_begun_on_that_one_only_and_in_its_turn(store: Store, server: RedisServer) -> None:
    wanted = ["kubernetes", None, "docker", None, "kubernetes", "docker"]
    for number, backend in enumerate(wanted):
        await store.create(a_job(f"{number}", backend=backend))
    await store.enlist("d", "e", 60, Runs.DOCKER)
    await store.enlist("k", "c", 60, Runs.KUBERNETES)
    assert [await store.begin("d", "e") for _ in range(2)] == ["1", "2"]
    assert [await store.begin("k", "c") for _ in range(4)] == ["0", "3", "4", None]
    assert [await store.begin("d", "e") for _ in range(2)] == ["5", None]
    assert (await store.get("0")).owner == "k"


@on_redis
async def test_a_job_for_a_backend_waits_in_its_place_while_it_is_held_and_no_longer_once_it_is_over(store: Store, server: RedisServer) -> None:
    for name in "ABCD":
        await store.create(a_job(name, backend="kubernetes"))
    await store.hold("A", True)
    await store.doom("B")
    await store.cancel("C")
    await store.enlist("k", "c", 60, Runs.KUBERNETES)
    assert (await store.counts()).waiting == 1
    await store.hold("A", False)
    assert [await store.begin("k", "c") for _ in range(3)] == ["A", "D", None]


@on_redis
async def test_a_job_that_names_a_backend_is_taken_over_on_that_one_only(store: Store, server: RedisServer) -> None:
    await store.enlist("gone", "e", 60)
    names = [f"{number:03}" for number in range(110)]
    for name in names:
        await store.create(a_job(name, backend="docker"))
    await store.create(a_job("any"))
    assert [await store.begin("gone", "e") for _ in range(111)] == [*names, "any"]
    await _ran_out(store, "gone")
    await store.enlist("k", "c", 60, Runs.KUBERNETES)
    await store.enlist("d", "another", 60, Runs.DOCKER)
    await asyncio.sleep(SOON)
    assert await store.adopt("k", "c", SOON / 2) == ["any"]
    assert await store.adopt("k", "c", SOON / 2) == []
    assert await store.adopt("d", "another", SOON / 2) == names[:100]
    assert await store.adopt("d", "another", SOON / 2) == names[100:]


@on_redis
async def test_what_nobody_owns_and_was_deleted_is_removed_on_any_backend(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A", backend="docker"))
    await store.create(a_job("B", backend="docker"))
    for name in "AB":
        await store.doom(name)
    await store.enlist("k", "c", 60, Runs.KUBERNETES)
    assert await store.adopt_one("A", "k", "c")
    assert await store.adopt("k", "c", 60) == ["B"]


@on_redis
async def test_operators_are_known_by_their_backend(store: Store, server: RedisServer) -> None:
    await store.enlist("d", "e", 60)
    await store.enlist("k", "c", 60, Runs.KUBERNETES)
    assert await store.operators() == ["d", "k"]
    assert (await store.operators("docker"), await store.operators("kubernetes")) == (["d"], ["k"])


# --- fences


@on_redis
async def test_one_that_was_paused_past_its_lease_can_write_nothing(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    await store.append("A", ATTEMPT, a_chunk(0, b"before"), job.fence)
    await _ran_out(store, "me")
    await store.enlist("you", "e", 60)
    assert await store.adopt("you", "e", 0) == ["A"]
    taken = await _loaded(store, "A")
    late = replace(job, version=taken.version)
    after = a_chunk(a_chunk(0, b"before").end.offset, b"late")
    for refused in (store.save(late), store.append("A", ATTEMPT, after, job.fence), store.keep_output(late, 0, b"late"), store.retire(late)):
        with pytest.raises(Stale):
            await refused
    assert await store.small_output("A", 0) is None
    await store.append("A", ATTEMPT, after, taken.fence)
    await store.doom("A")
    with pytest.raises(Stale):
        await store.forget(late)
    assert (await _loaded(store, "A")).told.doomed
    await store.forget(await _loaded(store, "A"))


@on_redis
async def test_each_change_of_owner_has_a_higher_fence(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    fences = [job.fence]
    for operator, before in (("you", "me"), ("me", "you"), ("you", "me")):
        await _ran_out(store, before)
        await store.enlist(operator, "e", 60)
        assert await store.adopt(operator, "e", 0) == ["A"]
        fences.append((await _loaded(store, "A")).fence)
    assert fences == sorted(set(fences))


@on_redis
async def test_an_operator_long_gone_is_known_while_it_owns_a_job(store: Store, server: RedisServer) -> None:
    await begun(store, "A", operator="gone")
    await store.enlist("idle", "e", 60)
    await store.enlist("me", "another", 60)
    with server.client() as client:
        client.zadd("dray:operators", {"gone": 1000, "idle": 1000})
        assert await store.adopt("me", "another", 0) == []
        assert client.hgetall("dray:engines") == {b"gone": b"e", b"me": b"another"}
        assert await store.adopt("me", "another", 60) == ["A"]
        await store.adopt("me", "another", 60)
        assert client.hgetall("dray:engines") == {b"me": b"another"}
        assert client.hgetall("dray:backends") == {b"me": b"docker"}
        assert client.hgetall("dray:begun") == {}
