"""Following a log: server-sent events from our API, each line once and in order, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import httpx
import pytest

from dray.log import Block, Chunk, Cursor
from dray.record import Phase
from dray.store import Store
from kit.api import Api
from kit.process import until
from kit.redis import RedisServer

pytestmark = pytest.mark.ours

MIB = 2**20
JOB: dict[str, Any] = {"steps": [{"source": "a"}, {"source": "b"}]}
FOLLOW = {"Accept": "text/event-stream"}


class Event(NamedTuple):
    name: str
    id: str
    data: Any


class Written:
    """A job's log, as an operator writes it."""

    def __init__(self, api: Api) -> None:
        self.api, self.job_id = api, api.post(JOB)
        self._at: dict[tuple[int, int], int] = {}

    def write(self, *lines: str, key: tuple[int, int] = (0, 1), stream: int = 1) -> None:
        """One chunk."""
        self.write_chunks([list(lines)], key, stream)

    def write_chunks(self, chunks: list[list[str]], key: tuple[int, int] = (0, 1), stream: int = 1) -> None:
        async def append(store: Store) -> None:
            for lines in chunks:
                payload = b"".join(_block(lines[start : start + 500], stream) for start in range(0, len(lines), 500))
                start = self._at.get(key, 0)
                self._at[key] = start + len(payload)
                await store.append(self.job_id, key, Chunk(Cursor(start), Cursor(start + len(payload)), len(lines), payload), 0)

        self.api.with_store(append)

    def end(self) -> None:
        async def save(store: Store) -> None:
            job = await store.get(self.job_id)
            await store.save(replace(job, phase=Phase.COMPLETE, finished_at=job.created_at))

        self.api.with_store(save)

    @property
    def path(self) -> str:
        return f"/jobs/{self.job_id}/log"


def _block(lines: list[str], stream: int) -> bytes:
    """As the runner cuts them, of some 64 KiB at most."""
    return Block(len(lines), 1_465_575_323_794_364, stream, "".join(f"{line}\n" for line in lines).encode()).dump()


def _parsed(lines: Iterator[str]) -> Iterator[Event]:
    """As a browser reads them."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Event(fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"]))
            fields = {}


def _all(api: Api, path: str, **headers: str) -> list[Event]:
    """To the end of the stream."""
    with api.http.stream("GET", path, headers=FOLLOW | headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(_parsed(answer.iter_lines()))


class Following:
    """Reads in a thread of its own; `events` grows."""

    def __init__(self, api: Api, path: str) -> None:
        self.events: list[Event] = []
        self.failed: Exception | None = None
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(api, path))
        self._thread.start()
        assert self._began.wait(20)

    def _read(self, api: Api, path: str) -> None:
        try:
            with httpx.stream("GET", api.url + path, headers=FOLLOW, timeout=60, trust_env=False) as answer:
                lines = answer.iter_lines()
                assert next(lines) == "retry: 1000"
                self._began.set()
                for event in _parsed(lines):
                    self.events.append(event)
        except httpx.TransportError as error:
            self.failed = error

    @property
    def lines(self) -> list[str]:
        return [event.data["line"] for event in self.events if event.name == "message"]

    def wait(self, count: int) -> None:
        until(lambda: len(self.events) >= count, 20, f"{count} events: {self.events}")

    def ended(self) -> list[Event]:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.events


def test_the_lines_of_a_job_that_has_ended_come_with_all_there_is_to_know_and_then_its_record(api: Api) -> None:
    log = Written(api)
    log.write("one", "zwö")
    log.write("three", stream=2)
    log.write("four", key=(0, 2), stream=0)
    log.write("", key=(1, 1))
    log.end()
    *lines, last = _all(api, log.path)
    time = "2016-06-10T16:15:23.794364Z"
    assert lines == [
        Event("message", "0", {"seq": 0, "time": time, "step": 1, "attempt": 1, "stream": "stdout", "line": "one"}),
        Event("message", "1", {"seq": 1, "time": time, "step": 1, "attempt": 1, "stream": "stdout", "line": "zwö"}),
        Event("message", "2", {"seq": 2, "time": time, "step": 1, "attempt": 1, "stream": "stderr", "line": "three"}),
        Event("message", "3", {"seq": 3, "time": time, "step": 1, "attempt": 2, "stream": "dray", "line": "four"}),
        Event("message", "4", {"seq": 4, "time": time, "step": 2, "attempt": 1, "stream": "stdout", "line": ""}),
    ]
    assert last == Event("end", "", api.http.get(f"/jobs/{log.job_id}").json())


def test_lines_come_as_they_are_written(api: Api) -> None:
    log = Written(api)
    following = Following(api, log.path)
    assert following.events == []
    for number in range(20):
        log.write(f"{number}")
        following.wait(number + 1)
    log.end()
    assert [event.name for event in following.ended()] == ["message"] * 20 + ["end"]
    assert following.lines == [f"{number}" for number in range(20)]


def test_a_long_log_is_exact_from_any_line_on(api: Api) -> None:
    log = Written(api)
    lines = [f"{number} {'ä' * (number % 50)}" for number in range(5_000)]
    log.write_chunks([lines[start : start + 123] for start in range(0, len(lines), 123)])
    log.end()
    for asked, first in [("0", 0), ("1", 1), ("122", 122), ("123", 123), ("4999", 4999), ("-1", 4999), ("-2000", 3000), ("5000", 5000), ("x", 0)]:
        events = _all(api, f"{log.path}?index={asked}")
        assert [event.data["line"] for event in events[:-1]] == lines[first:], asked
        assert [event.id for event in events[:-1]] == [str(number) for number in range(first, 5_000)]
        assert events[-1].name == "end"


def test_following_is_resumed_after_the_line_that_was_seen_last(api: Api) -> None:
    log = Written(api)
    log.write_chunks([[f"{number}" for number in range(start, start + 7)] for start in range(0, 70, 7)])
    log.end()
    seen: list[str] = []
    last: dict[str, str] = {}
    while len(seen) < 70:
        with api.http.stream("GET", f"{log.path}?index=-1", headers=FOLLOW | (last or {"Last-Event-ID": ""})) as answer:
            events = _parsed(answer.iter_lines())
            if not last:
                assert next(events).data["line"] == "69"
                last = {"Last-Event-ID": "0"}
                seen.append("0")
                continue
            for event in [next(events) for _ in range(min(9, 70 - len(seen)))]:
                seen.append(event.data["line"])
                last = {"Last-Event-ID": event.id}
    assert seen == [f"{number}" for number in range(70)]
    assert [event.name for event in _all(api, log.path, **{"Last-Event-ID": "69"})] == ["end"]


def test_who_follows_from_a_line_to_come_gets_it_when_it_comes(api: Api) -> None:
    log = Written(api)
    log.write("0", "1")
    following = Following(api, f"{log.path}?index=3")
    log.write("2", "3", "4")
    following.wait(2)
    log.end()
    following.ended()
    assert following.lines == ["3", "4"]


def test_following_ends_when_the_job_is_deleted(api: Api) -> None:
    log = Written(api)
    following = Following(api, log.path)
    log.write("one")
    following.wait(1)
    api.http.delete(f"/jobs/{log.job_id}").raise_for_status()
    assert following.ended()[1:] == [Event("deleted", "", {})]
    assert api.http.get(log.path, headers=FOLLOW).status_code == 404


def test_a_head_is_answered_at_once(api: Api) -> None:
    log = Written(api)
    answer = api.http.head(log.path, headers=FOLLOW)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")


def test_following_goes_on_when_redis_comes_back(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> None:
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    api = make_api(redis_url=redis.url)
    log = Written(api)
    following = Following(api, log.path)
    log.write("before")
    following.wait(1)
    redis.kill()
    time.sleep(1)
    redis.start()
    log.write("after")
    following.wait(2)
    log.end()
    assert [event.name for event in following.ended()] == ["message", "message", "end"]
    assert following.lines == ["before", "after"]


def test_a_stopping_server_lets_its_followers_go_at_once(make_api: Callable[..., Api]) -> None:
    api = make_api()
    log = Written(api)
    following = Following(api, log.path)
    log.write("one")
    following.wait(1)
    assert api.process.stop(within=4) == 0
    assert [event.name for event in following.ended()] == ["message"]
    assert following.failed is None
    assert "Traceback" not in api.process.output


# --- many, and slow ones


def test_however_many_follow_one_connection_listens(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> None:
    redis = make_redis()
    api = make_api(redis_url=redis.url)
    logs = [Written(api) for _ in range(3)]
    with redis.client() as client:

        def listening() -> int:
            ((_, count),) = client.pubsub_numsub("dray:news")
            return int(count)

        asyncio.run(_many(api, logs, listening))
        until(lambda: listening() == 0, 10, "nobody listens any more")
        assert len(client.client_list()) < 80


async def _many(api: Api, logs: list[Written], listening: Callable[[], int]) -> None:
    """400 followers, each of which gets its job's lines."""
    readers = []
    for number in range(400):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(f"GET {logs[number % 3].path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n".encode())
        readers.append((reader, writer))
    for reader, _ in readers:
        await reader.readuntil(b"retry: 1000")
    assert listening() == 1
    for number, log in enumerate(logs):
        await asyncio.to_thread(log.write, f"of job {number}")
        await asyncio.to_thread(log.end)
    for number, (reader, writer) in enumerate(readers):
        received = await reader.read(-1)
        assert received.count(b'"line":"') == 1
        assert f"of job {number % 3}".encode() in received
        assert b"event: end" in received
        writer.close()


def test_followers_that_do_not_read_cost_little_memory(make_api: Callable[..., Api]) -> None:
    api = make_api()
    log = Written(api)
    log.write_chunks([["x" * 99] * 10_000] * 50)
    for _ in _open(api, log, 1):
        pass
    before = api.memory
    for _ in _open(api, log, 20):
        time.sleep(2)
        assert api.http.get("/healthz").status_code == 200
    assert api.memory - before < 100 * MIB  # of 20 times 50


def _open(api: Api, log: Written, count: int) -> Iterator[None]:
    opened = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(count)]
    for connection in opened:
        connection.sendall(f"GET {log.path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode())
    for connection in opened:
        assert connection.recv(10)
    yield
    for connection in opened:
        connection.close()


def test_a_follower_that_goes_away_is_forgotten(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> None:
    redis = make_redis()
    api = make_api(redis_url=redis.url)
    log = Written(api)
    with redis.client() as client:

        def listening() -> bool:
            return bool(client.pubsub_numsub("dray:news")[0][1])

        for _ in _open(api, log, 3):
            until(listening, 10, "somebody listens")
        until(lambda: not listening(), 10, "nobody listens any more")
        for _ in _open(api, log, 1):
            until(listening, 10, "somebody listens again")


@pytest.mark.full
def test_a_silent_log_sends_a_sign_of_life(api: Api) -> None:
    log = Written(api)
    with api.http.stream("GET", log.path, headers=FOLLOW) as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == ["retry: 1000", "", ":"]
