"""Our API's answers at their extremes: long lists, logs and outputs, clients that go away, a Redis or an output store that fails."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from dray.log import Block, Chunk, Cursor
from dray.outputs import Outputs
from dray.reason import Reason
from dray.record import Phase
from dray.store import SMALL_OUTPUT, Store
from kit.api import Api
from kit.process import until
from kit.redis import RedisServer

pytestmark = pytest.mark.ours

MIB = 2**20
JOB: dict[str, Any] = {"steps": [{"source": "a"}]}


async def _append(store: Store, job_id: str, payloads: list[bytes]) -> None:
    """A chunk of the log for each."""
    at = Cursor()
    for payload in payloads:
        block = Block(payload.count(b"\n"), 7, 1, payload)
        after = Cursor(at.offset + len(payload) + 24)
        await store.append(job_id, (0, 1), Chunk(at, after, block.lines, block.dump()), 0)
        at = after


async def _end(store: Store, job_id: str, size: int) -> None:
    """As if the job were complete, with an output of that size."""
    job = await store.get(job_id)
    steps = tuple(replace(state, phase=Phase.COMPLETE, exit_code=0) for state in job.steps)
    await store.save(replace(job, phase=Phase.COMPLETE, steps=steps, output=size, finished_at=job.created_at + 1_500_000))


def _complete(api: Api, output: bytes, size: int | None = None) -> str:
    """A complete job whose output is kept where the operator would; `size`: what the record says of it."""
    job_id = api.post(JOB)

    async def keep(store: Store) -> None:
        if len(output) <= SMALL_OUTPUT:
            await store.keep_output(await store.get(job_id), 0, output)
        else:
            blocks = (output[start : start + MIB] for start in range(0, len(output), MIB))
            await Outputs(api.outputs).put(job_id, 0, _each(blocks))
        await _end(store, job_id, len(output) if size is None else size)

    api.with_store(keep)
    return job_id


async def _each(blocks: Any) -> Any:
    for block in blocks:
        yield block


# --- logs


def test_a_long_log_is_exact_from_any_index_on_with_any_limit(api: Api) -> None:
    job_id = api.post(JOB)
    lines = [f"{number} {'ä' * (number % 50)}" for number in range(20_000)]
    chunks = ["".join(f"{line}\n" for line in lines[start : start + 123]).encode() for start in range(0, len(lines), 123)]
    api.with_store(lambda store: _append(store, job_id, chunks))
    for index, limit in [(0, None), (1, None), (122, None), (123, 1), (124, 122), (7000, 5000), (-1, None), (-20_000, 3), (19_999, 1), (20_000, None)]:
        first = index % len(lines) if index < 0 else index
        params = {"index": index} | ({} if limit is None else {"limit": limit})
        found = api.http.get(f"/jobs/{job_id}/log", params=params).json()["lines"]
        assert found == lines[first : None if limit is None else first + limit], params


def test_a_huge_log_takes_little_memory(make_api: Callable[..., Api]) -> None:
    api = make_api()
    job_id = api.post(JOB)
    chunk = b"".join(b"%07d " % number + b"x" * 91 + b"\n" for number in range(10_000))
    api.with_store(lambda store: _append(store, job_id, [chunk] * 120))
    before = api.memory
    size = 0
    with api.http.stream("GET", f"/jobs/{job_id}/log") as answer:
        for block in answer.iter_raw():
            size += len(block)
    assert size == 120 * 10_000 * (99 + 3) + len('{"lines":[') + len("]}") - 1
    assert api.memory - before < 80 * MIB  # of a log of 120: a page of 16, decoded


def test_the_end_of_a_huge_log_is_quick(api: Api) -> None:
    job_id = api.post(JOB)
    api.with_store(lambda store: _append(store, job_id, [b"line\n" * 20_000] * 100))
    began = time.monotonic()
    for index in (-1, 1_999_999, 1_000_000):
        assert api.http.get(f"/jobs/{job_id}/log", params={"index": index, "limit": 1}).json() == {"lines": ["line"]}
    assert time.monotonic() - began < 1


def test_a_log_can_be_read_while_it_grows(api: Api) -> None:
    job_id = api.post(JOB)
    read: list[str] = []
    at = Cursor()
    for number in range(30):
        block = Block(2, 7, 1, b"%d\nand\n" % number)
        after = Cursor(at.offset + 100)
        chunk = Chunk(at, after, 2, block.dump())
        api.with_store(lambda store, chunk=chunk: store.append(job_id, (0, 1), chunk, 0))  # type: ignore[misc]
        at = after
        read += api.http.get(f"/jobs/{job_id}/log", params={"index": len(read)}).json()["lines"]
    assert read == [line for number in range(30) for line in (f"{number}", "and")]


# --- the list


def test_a_long_list_is_whole_and_in_order(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> None:
    api = make_api(redis_url=make_redis().url)
    assert api.http.get("/jobs").text == "[]"
    posted = [api.post(JOB) for _ in range(3)]

    async def many(store: Store) -> None:
        job = await store.get(posted[0])
        for start in range(0, 12_000, 100):
            await asyncio.gather(*(store.create(replace(job, id=f"{number:05}")) for number in range(start, start + 100)))

    api.with_store(many)
    ids = api.ids()
    assert ids[:3] == posted
    assert sorted(ids[3:]) == [f"{number:05}" for number in range(12_000)]
    assert api.http.head("/jobs").status_code == 200
    api.process.stop()


# --- outputs


@pytest.mark.parametrize("size", [0, 1, SMALL_OUTPUT, SMALL_OUTPUT + 1, MIB, 5 * MIB + 7])
def test_an_output_of_any_size_comes_back(api: Api, size: int) -> None:
    output = bytes(islice((number * 31 % 256 for number in range(size)), size))
    job_id = _complete(api, output)
    answer = api.http.get(f"/jobs/{job_id}/output")
    assert answer.content == output
    assert answer.headers["content-length"] == str(size)
    head = api.http.head(f"/jobs/{job_id}/output")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")


def test_an_output_that_this_api_cannot_reach_is_404_and_says_what_to_look_at(api: Api) -> None:
    job_id = _complete(api, b"", size=SMALL_OUTPUT + 1)
    answer = api.http.get(f"/jobs/{job_id}/output")
    assert answer.status_code == 404
    assert "DRAY_OUTPUTS" in answer.json()["detail"]


@pytest.mark.parametrize("claimed", [2 * MIB + 1, 9 * MIB, 2 * MIB - 1, SMALL_OUTPUT + 1])
def test_an_output_of_another_size_than_recorded_is_never_taken_for_whole(api: Api, claimed: int) -> None:
    job_id = _complete(api, b"x" * (2 * MIB), size=claimed)
    with pytest.raises(httpx.RemoteProtocolError):
        api.http.get(f"/jobs/{job_id}/output")
    assert api.http.get("/healthz").status_code == 200


def test_a_failed_job_has_no_output_and_says_why(api: Api) -> None:
    job_id = api.post(JOB)

    async def fail(store: Store) -> None:
        job = await store.get(job_id)
        await store.save(replace(job, phase=Phase.ERROR, reason=Reason.EXIT_CODE, message="step 1 (a): exit code 3", finished_at=job.created_at))

    api.with_store(fail)
    answer = api.http.get(f"/jobs/{job_id}/output")
    assert (answer.status_code, answer.json()["title"]) == (409, "No output")
    assert "step 1 (a): exit code 3" in answer.json()["detail"]


# --- clients


def test_a_client_that_goes_away_lets_go_of_the_output(api: Api) -> None:
    job_id = _complete(api, b"x" * (40 * MIB))
    opened = Path(f"/proc/{api.process.pid}/fd")

    def reads() -> bool:
        return any(str(file.resolve()).endswith(f"{job_id}/0") for file in opened.iterdir())

    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(f"GET /jobs/{job_id}/output HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(10)
        assert reads()
    until(lambda: not reads(), 10, "the output's file is closed")


def test_a_client_that_does_not_read_does_not_fill_the_memory(make_api: Callable[..., Api]) -> None:
    api = make_api()
    job_id = _complete(api, b"x" * (200 * MIB))
    before = api.memory
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(f"GET /jobs/{job_id}/output HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(1)
        assert api.http.get("/healthz").status_code == 200
    assert api.memory - before < 40 * MIB


def test_many_at_once_are_all_answered(api: Api) -> None:
    before = len(api.ids())
    post = b'POST /jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 26\r\n\r\n{"steps":[{"source":"a"}]}'
    with ThreadPoolExecutor(150) as pool:
        answers = list(pool.map(lambda _: api.raw(post), range(500)))
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 201"}
    assert len(api.ids()) == before + 500


def test_requests_on_one_connection_are_answered_in_turn(api: Api) -> None:
    body = b'{"steps":[]}'
    post = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    received = api.raw((post + get) * 20 + last)
    assert [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]] == [422, 200] * 20 + [404]


def test_headers_that_come_bit_by_bit_count_for_their_own_request_only(api: Api) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(15):
            connection.sendall(request[:-10])
            time.sleep(0.02)
            connection.sendall(request[-10:])
            answer = b""
            while b'{"status":"ok"}' not in answer:
                answer += connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200")


# --- what fails


@pytest.fixture
def alone(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> tuple[Api, RedisServer]:
    """An API with a Redis of its own."""
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    return make_api(redis_url=redis.url), redis


def _asked(api: Api, job_id: str) -> dict[str, httpx.Response]:
    return {
        "create": api.http.post("/jobs", json=JOB),
        "list": api.http.get("/jobs"),
        "show": api.http.get(f"/jobs/{job_id}"),
        "log": api.http.get(f"/jobs/{job_id}/log"),
        "output": api.http.get(f"/jobs/{job_id}/output"),
        "ready": api.http.get("/readyz"),
        "delete": api.http.delete(f"/jobs/{job_id}"),
    }


def test_without_redis_all_is_503_but_health_and_comes_back_with_it(alone: tuple[Api, RedisServer]) -> None:
    api, redis = alone
    job_id = api.post(JOB)
    redis.kill()
    for name, answer in _asked(api, job_id).items():
        assert answer.status_code == 503, name
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        assert "Redis" in answer.json()["detail"]
    assert api.http.get("/healthz").status_code == 200
    assert api.http.post("/jobs", json={}).status_code == 422
    redis.start()
    assert api.ids() == [job_id]
    assert api.http.get("/readyz").status_code == 200


def test_a_redis_that_hangs_is_not_ready_soon_and_health_does_not_wait(alone: tuple[Api, RedisServer]) -> None:
    api, redis = alone
    redis.process.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = api.http.get("/readyz")
        assert answer.status_code == 503
        assert "within 5 seconds" in answer.json()["detail"]
        assert api.http.get("/healthz").status_code == 200
        assert time.monotonic() - began < 10
    finally:
        redis.process.signal(signal.SIGCONT)


def test_a_full_redis_takes_no_job_and_still_lists_them(alone: tuple[Api, RedisServer]) -> None:
    api, redis = alone
    job_id = api.post(JOB)
    with redis.client() as client:
        client.config_set("maxmemory", 1)
        assert api.http.post("/jobs", json=JOB).status_code == 503
        assert api.ids() == [job_id]
        client.config_set("maxmemory", 0)
    api.post(JOB)


def test_a_log_that_breaks_off_is_never_taken_for_whole(alone: tuple[Api, RedisServer]) -> None:
    api, redis = alone
    job_id = api.post(JOB)
    api.with_store(lambda store: _append(store, job_id, [b"line\n" * 100_000] * 100))
    with api.http.stream("GET", f"/jobs/{job_id}/log") as answer:
        assert answer.status_code == 200
        redis.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    assert "broke off" in api.process.output
    assert "Traceback" not in api.process.output
    redis.start()


def test_an_error_nobody_foresaw_is_a_500_that_says_nothing_of_it(alone: tuple[Api, RedisServer]) -> None:
    api, redis = alone
    job_id = api.post(JOB)
    with redis.client() as client:
        client.hset(f"dray:job:{job_id}", "state", '{"phase": "hunter2"}')
    answer = api.http.get(f"/jobs/{job_id}")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    assert "Traceback" in api.process.output
    assert api.process.output.count("Traceback") == 1


def test_of_a_huge_log_only_the_lines_asked_for_are_fetched(alone: tuple[Api, RedisServer]) -> None:
    api, redis = alone
    job_id = api.post(JOB)
    api.with_store(lambda store: _append(store, job_id, [b"x" * 99_999 + b"\n"] * 100))
    with redis.client() as client:
        before = client.info("stats")["total_net_output_bytes"]
        assert len(api.http.get(f"/jobs/{job_id}/log", params={"index": 40, "limit": 3}).json()["lines"]) == 3
        assert client.info("stats")["total_net_output_bytes"] - before < 5 * 100_000
        assert api.http.head(f"/jobs/{job_id}/log").status_code == 200
        assert client.info("stats")["total_net_output_bytes"] - before < 5_000_000  # of ten


def test_a_log_of_many_chunks_is_read_in_pages(alone: tuple[Api, RedisServer]) -> None:
    api, redis = alone
    job_id = api.post(JOB)
    api.with_store(lambda store: _append(store, job_id, [b"line\n"] * 160))
    with redis.client() as client:
        before = client.info("stats")["total_commands_processed"]
        assert len(api.http.get(f"/jobs/{job_id}/log").json()["lines"]) == 160
        assert client.info("stats")["total_commands_processed"] - before < 30


def test_show_takes_one_round_trip_to_redis(alone: tuple[Api, RedisServer]) -> None:
    api, redis = alone
    job_id = api.post(JOB)
    api.http.get(f"/jobs/{job_id}")
    with redis.client() as client:
        before = client.info("stats")["total_commands_processed"]
        for _ in range(10):
            api.http.get(f"/jobs/{job_id}")
        assert client.info("stats")["total_commands_processed"] - before == 10 + 1
