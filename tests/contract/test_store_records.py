"""Records on a real Redis: what each script promises, also when it runs twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from store_kit import ATTEMPT, a_chunk, a_job, begun, ended, ids, keys, on_redis, waiting

from dray.errors import Finished, KeyReused, NotFound, Stale, Unavailable
from dray.reason import Reason
from dray.record import INPUT, Input, Job, Past, Phase, StepState, Told
from dray.store import IdempotencyKey, Kept, Laid, Store
from kit.redis import RedisServer

KEY = IdempotencyKey.of("key", "request")


@on_redis
async def test_a_record_comes_back_as_it_was(store: Store, server: RedisServer) -> None:
    job = a_job("A", steps=2)
    assert await store.create(job) == "A"
    assert await store.load("A") == job
    steps = (StepState(Phase.COMPLETE, 2, 1, 0, 5, 6, 7, 8, past=(Past(1, Reason.LOST, None, 3, 4),)), StepState(Phase.ERROR, exit_code=3))
    failed = replace(job, phase=Phase.ERROR, pod="p", steps=steps, started_at=1, finished_at=2, reason=Reason.LOST, message="ö", output=9)
    await store.save(failed)
    found = await store.get("A")
    assert found == replace(failed, version=1)
    assert found.spec.steps[0].model_fields_set == job.spec.steps[0].model_fields_set


@on_redis
async def test_there_is_no_job_that_was_not_created(store: Store, server: RedisServer) -> None:
    assert await store.load("A") is None
    for call in (store.get("A"), store.doom("A"), store.cancel("A"), store.hold("A", True), anext(store.log("A", 0))):
        with pytest.raises(NotFound, match="no job A"):
            await call
    none = a_job("A")
    for refused in (store.save(none), store.retire(none), store.append("A", ATTEMPT, a_chunk(0, b"x"), 0), store.keep_output(none, 0, b"x")):
        with pytest.raises(Stale):
            await refused
    await store.forget(none)
    assert keys(server) == set()


@on_redis
async def test_created_twice_is_one_job(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    await store.create(a_job("B"))
    assert await store.create(a_job("A")) == "A"
    assert await store.get("A") == job
    assert await ids(store) == ["A", "B"]
    assert await waiting(store) == ["B"]


@on_redis
async def test_of_two_who_save_what_they_read_one_is_stale(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    mine, yours = await store.get("A"), await store.get("A")
    saved = await store.save(replace(mine, message="kept"))
    assert saved.version == 1
    for late in (replace(yours, message="lost"), mine):
        with pytest.raises(Stale):
            await store.save(late)
    assert await store.get("A") == saved


@on_redis
async def test_many_who_save_at_once_take_turns(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    read = await store.get("A")
    results = await asyncio.gather(*(store.save(replace(read, message=str(number))) for number in range(150)), return_exceptions=True)
    saved = [result for result in results if isinstance(result, Job)]
    assert len(saved) == 1
    assert all(isinstance(result, Stale) for result in results if result is not saved[0])
    assert await store.get("A") == saved[0]


@on_redis
async def test_each_change_that_needs_an_operator_wakes_it(store: Store, server: RedisServer) -> None:
    wakes = store.wakes()
    assert await anext(wakes) is None
    await begun(store, "A")
    assert await anext(wakes) == "A"
    for change in (store.create(a_job("A")), store.cancel("A"), store.hold("A", True), store.hold("A", True), store.hold("A", False), store.doom("A")):
        await change
    assert [await anext(wakes) for _ in range(5)] == ["A", "A", "A", "A", None]


@on_redis
async def test_an_instance_has_one_name(store: Store, server: RedisServer) -> None:
    names = await asyncio.gather(*(store.instance() for _ in range(20)))
    assert len(set(names)) == 1
    assert names[0]


# --- idempotency keys


@on_redis
async def test_a_request_made_again_under_its_key_makes_no_second_job(store: Store, server: RedisServer) -> None:
    found = await asyncio.gather(*(store.create(a_job(f"{number}"), KEY) for number in range(20)))
    assert len(set(found)) == 1
    assert await ids(store) == found[:1] == await waiting(store)


@on_redis
async def test_another_request_under_the_same_key_is_refused(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"), KEY)
    with pytest.raises(KeyReused):
        await store.create(a_job("B"), IdempotencyKey.of("key", "requesT"))
    assert await store.create(a_job("C"), IdempotencyKey.of("another key", "request")) == "C"
    assert await ids(store) == ["A", "C"]


@on_redis
async def test_a_key_is_remembered_for_a_day_even_when_its_job_is_gone_and_is_kept_hashed(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"), IdempotencyKey.of("hunter2", "request"))
    await store.doom("A")
    found = await store.load("A")
    assert found is not None
    await store.forget(found)
    assert await store.create(a_job("B"), IdempotencyKey.of("hunter2", "request")) == "A"
    assert await ids(store) == []
    (kept,) = [key for key in keys(server) if key.startswith("dray:key:")]
    assert "hunter2" not in kept
    with server.client() as client:
        assert 86_000 < int(str(client.ttl(kept))) <= 86_400


def test_the_parts_of_a_request_do_not_run_into_each_other() -> None:
    assert IdempotencyKey.of("k", "ab", "c") != IdempotencyKey.of("k", "a", "bc")


# --- cancel


@on_redis
async def test_a_job_that_waits_is_cancelled_at_once(store: Store, server: RedisServer) -> None:
    for name in "AB":
        await store.create(a_job(name))
    cancelled = await store.cancel("A")
    assert (cancelled.phase, cancelled.reason) == (Phase.ERROR, Reason.CANCELLED)
    assert cancelled.finished_at is not None
    assert await store.get("A") == cancelled
    assert await waiting(store) == ["B"]
    assert await store.cancel("A") == cancelled
    assert await store.outdated(None, 0, 9) == ["A"]


@on_redis
async def test_a_job_that_has_begun_is_told_once_how_far_it_is_cancelled(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    for always, level in ((False, 1), (False, 1), (True, 2), (True, 2), (False, 2)):
        told = await store.cancel("A", always)
        assert told == replace(job, told=Told(cancelled=level), version=job.version + level)
    with pytest.raises(Stale):
        await store.save(job)
    await store.save(ended(told))
    with pytest.raises(Finished):
        await store.cancel("A")


@on_redis
async def test_cancel_and_begin_at_once_end_in_one_of_both(store: Store, server: RedisServer) -> None:
    await store.enlist("me", "e", 60)
    for number in range(50):
        await store.create(a_job(f"{number}"))
        begun_id, cancelled = await asyncio.gather(store.begin("me", "e"), store.cancel(f"{number}"))
        assert (begun_id is None) == (cancelled.phase is Phase.ERROR)
        assert (begun_id is not None) == (cancelled.told.cancelled == 1)


# --- hold


@on_redis
async def test_a_job_that_is_held_is_not_begun_and_keeps_its_place(store: Store, server: RedisServer) -> None:
    for name in "ABC":
        await store.create(a_job(name))
    for _ in range(2):
        await store.hold("A", True)
        await store.hold("B", True)
    held = await store.get("A")
    assert (held.told, held.version) == (Told(held=True), 1)
    assert (await store.counts()).waiting == 1
    await store.hold("B", False)
    await store.hold("A", False)
    assert await waiting(store) == ["A", "B", "C"]


@on_redis
async def test_a_held_job_can_be_cancelled_and_deleted(store: Store, server: RedisServer) -> None:
    for name in "AB":
        await store.create(a_job(name))
        await store.hold(name, True)
    assert (await store.cancel("A")).reason is Reason.CANCELLED
    await store.doom("B")
    with pytest.raises(Finished):
        await store.hold("A", False)
    with pytest.raises(NotFound):
        await store.hold("B", False)
    assert await waiting(store) == []


@on_redis
async def test_a_job_that_runs_is_told_that_it_is_held_and_does_not_wait_again(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    await store.hold("A", True)
    assert await store.get("A") == replace(job, told=Told(held=True), version=job.version + 1)
    await store.hold("A", False)
    assert await waiting(store) == []


# --- deleting


@on_redis
async def test_a_doomed_job_is_gone_for_clients_and_not_for_the_operator(store: Store, server: RedisServer) -> None:
    job, _ = await begun(store, "A", "B")
    await store.append("A", ATTEMPT, a_chunk(0, b"x"), job.fence)
    await store.doom("A")
    for call in (store.get("A"), store.doom("A"), store.cancel("A"), store.hold("A", True), anext(store.log("A", 0))):
        with pytest.raises(NotFound):
            await call
    assert await store.load("A") == replace(job, told=Told(doomed=True), version=job.version + 1)
    assert (await ids(store), await store.mine("me")) == (["B"], ["A", "B"])
    with pytest.raises(Stale):
        await store.save(job)


@on_redis
async def test_a_job_doomed_before_its_turn_never_gets_one(store: Store, server: RedisServer) -> None:
    await store.create(a_job("A"))
    await store.doom("A")
    assert await waiting(store) == []
    assert await store.adopt("counting", "none", 0) == ["A"]


@on_redis
async def test_a_job_that_ends_after_it_was_doomed_is_in_no_list(store: Store, server: RedisServer) -> None:
    await begun(store, "A")
    await store.doom("A")
    doomed = await store.load("A")
    assert doomed is not None
    await store.save(ended(doomed))
    assert set((await store.counts()).by_status.values()) == {0}
    assert await store.outdated(None, 0, 9) == []


@on_redis
async def test_a_job_deleted_meanwhile_is_not_retired(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    await store.doom("A")
    with pytest.raises(Stale):
        await store.retire(job)
    assert await store.mine("me") == ["A"]


@on_redis
async def test_a_job_that_was_not_deleted_is_not_forgotten(store: Store, server: RedisServer) -> None:
    (job,) = await begun(store, "A")
    with pytest.raises(Stale):
        await store.forget(job)
    assert await store.get("A") == job


@on_redis
async def test_a_forgotten_job_leaves_no_key(store: Store, server: RedisServer) -> None:
    await begun(store, "B")
    await store.create(a_job("X"))
    await store.begin("me", "e")
    others = keys(server)
    await store.create(a_job("A", labels={"some": "label"}))
    await store.begin("me", "e")
    job = await store.get("A")
    await store.append("A", ATTEMPT, a_chunk(0, b"x"), job.fence)
    await store.keep_output(job, 0, b"output")
    await store.doom("A")
    for _ in range(2):
        await store.forget(job)
    assert keys(server) == others
    assert (await ids(store), await store.mine("me")) == (["B", "X"], ["B", "X"])
    for late in (store.append("A", ATTEMPT, a_chunk(0, b"late"), job.fence), store.keep_output(job, 0, b"late"), store.save(job)):
        with pytest.raises(Stale):
            await late
    assert keys(server) == others


# --- what a job has from its beginning


@on_redis
async def test_a_small_input_is_there_with_the_job_and_goes_with_it(store: Store, server: RedisServer) -> None:
    job = replace(a_job("A"), input=Input(2, "aa"))
    assert await store.create(job, laid=Laid(input=b"in")) == "A"
    assert await store.get("A") == job
    assert await store.small_output("A", INPUT) == b"in"
    assert await store.create(replace(a_job("B"), input=job.input), laid=Laid(Kept("A", (INPUT,)))) == "B"
    assert await store.small_output("B", INPUT) == b"in"


@on_redis
async def test_what_is_uploaded_for_a_job_is_nobodys_only_when_its_lease_is_over(store: Store, server: RedisServer) -> None:
    async with store.uploading("A"), store.uploading("B"), store.uploading("C"):
        assert await store.abandoned(9) == []
        assert await store.create(a_job("A"), laid=Laid(uploaded=True)) == "A"
        with server.client() as redis:
            assert redis.zrange("dray:uploads", 0, -1) == [b"B", b"C"]
            redis.zadd("dray:uploads", {"B": 1})
        assert await store.abandoned(9) == ["B"]
        with pytest.raises(Unavailable, match="given up"):
            await store.create(a_job("B"), laid=Laid(uploaded=True))
    assert await ids(store) == ["A"]
    await store.uploaded_nothing("B")
    await store.uploaded_nothing("C")
    assert (await store.abandoned(9), "dray:uploads" in keys(server)) == ([], False)
