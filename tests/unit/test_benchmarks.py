"""The benchmarks' own words and tools. What they measure is in docs/performance.md, and in no test."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from benchmarks import processes, report, stored
from benchmarks.bench import turns
from benchmarks.counting import EngineCalls, RedisTrips, kind
from benchmarks.groups import MEASURES, follow
from benchmarks.load import request, whole
from benchmarks.rows import GROUPS, ROWS, Bound, Row, groups_of

from kit.redis import RedisServer

FAST = Row("fast", "group", "seconds", "s", True, (Bound("peer", 0.5, 0.25),))
MANY = Row("many", "group", "jobs a second", "jobs/s", False, (Bound("peer", 2, None), Bound("best", None, 0.9)))
ALONE = Row("alone", "group", "memory", "MiB", True, (Bound(None, 150, 80),))


# --- the document


def test_the_documents_table_is_made_of_the_results() -> None:
    text = report.DOC.read_text()
    assert report.document(text, report.read(report.RESULTS)) == text


def test_every_row_is_measured_and_explained() -> None:
    explained = re.findall(r"^\| `(.+?)` \|", report.DOC.read_text().partition("## What came out")[0], re.MULTILINE)
    assert set(MEASURES) == set(GROUPS)
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert [row.name for row in ROWS if not any(fnmatch(row.name, name.replace("…", "*")) for name in explained)] == []


def test_a_row_that_was_left_out_says_why() -> None:
    machine = {"when": "2026-01-31T00:00:00", "processors": 2, "memory": 2**34, "engine": "1", "storage": "overlay2", "python": "3.11"}
    results = {"follow": {"machine": machine, "rounds": 5, "rows": {}, "skipped": {"follow-events": "no events here"}}}
    found = report.table(results)
    assert found.startswith("2026-01-31, 5 rounds: 2 processors, 16 GiB, Docker 1 (overlay2), Python 3.11.\n\n| row |")
    assert "| `follow-events` | a line written → seen, following the log's events | no events here |" in found
    assert f"| `start` | {next(row.title for row in ROWS if row.name == 'start')} | not measured |" in found


# --- verdicts


def _verdicts(row: Row, series: dict[str, list[float]]) -> dict[str, str]:
    return {line.beside.partition(":")[0]: line.verdict for line in report.lines(row, series)}


@pytest.mark.parametrize(("ours", "verdict"), [(0.25, "aim reached"), (0.26, "ok"), (0.5, "ok"), (0.51, "short")])
def test_where_less_is_better_a_bound_is_the_most(ours: float, verdict: str) -> None:
    assert _verdicts(FAST, {"dray": [ours], "peer": [1.0]}) == {"peer": verdict}


@pytest.mark.parametrize(("ours", "beside_peer", "beside_best"), [(1.9, "short", "below the aim"), (2.0, "ok", "below the aim"), (9.0, "ok", "aim reached")])
def test_where_more_is_better_a_bound_is_the_least(ours: float, beside_peer: str, beside_best: str) -> None:
    assert _verdicts(MANY, {"dray": [ours], "peer": [1.0], "best": [10.0]}) == {"peer": beside_peer, "best": beside_best}


def test_a_bound_beside_nobody_is_on_the_median() -> None:
    (line,) = report.lines(ALONE, {"dray": [1.0, 100.0, 500.0]})
    assert (line.here, line.ratio, line.verdict) == ("100 (1.00–500)", None, "ok")


def test_the_ratio_is_the_median_of_each_rounds() -> None:
    (line,) = report.lines(FAST, {"dray": [1.0, 10.0, 6.0], "peer": [2.0, 100.0, 6.0]})
    assert line.ratio == 0.5


def test_a_peer_of_which_nothing_is_asked_is_shown_and_not_judged() -> None:
    judged, shown = report.lines(FAST, {"dray": [1.0], "peer": [1.0], "other": [4.0]})
    assert (judged.verdict, shown.beside, shown.ratio, shown.verdict) == ("short", "other: 4.00 (4.00–4.00)", 0.25, "")


# --- rows by name, and turns


def test_a_row_is_measured_with_its_group() -> None:
    assert groups_of([]) == list(GROUPS)
    assert groups_of(["memory-text", "instant", "bulk"]) == ["instant", "bulk"]
    with pytest.raises(KeyError):
        groups_of(["instant", "no such row"])


def test_all_take_turns() -> None:
    taken: list[str] = []

    def measure(name: str) -> Callable[[], float]:
        def turn() -> float:
            taken.append(name)
            return float(len(taken))

        return turn

    assert turns(2, {"ours": measure("ours"), "peer": measure("peer")}) == {"ours": [1.0, 3.0], "peer": [2.0, 4.0]}
    assert taken == ["ours", "peer", "ours", "peer"]


# --- following


@pytest.fixture
def log_server() -> Iterator[Callable[[str, list[bytes]], int]]:
    """log_server(type, pieces): the port of a server that answers whatever is asked with these pieces, each a chunk."""
    with ExitStack() as running:

        def make(content_type: str, pieces: list[bytes]) -> int:
            class Answers(BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"

                def do_GET(self) -> None:
                    self.send_response(200)
                    self.send_header("Content-Type", content_type)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.close_connection = True
                    with suppress(ConnectionError):  # who asks may have seen enough
                        for piece in [*pieces, b""]:
                            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

                def finish(self) -> None:
                    with suppress(ConnectionError):
                        super().finish()

                def log_message(self, *_: object) -> None:
                    pass

            server = running.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Answers))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            running.callback(thread.join)
            running.callback(server.shutdown)
            return server.server_port

        yield make


def test_a_follower_takes_the_lines_out_of_the_events(log_server: Callable[[str, list[bytes]], int]) -> None:
    pieces = [b": hello\n\n", b'id: 0\ndata: {"seq": 0, "line": "one"}\n\n', b'id: 1\ndata: {"seq": 1, "li', b'ne": "two"}\n\nevent: end\ndata: {}\n\n']
    port = log_server("text/event-stream; charset=utf-8", pieces)
    assert follow.has_events(port, "any")
    assert list(follow.events(port, "any")) == ["one", "two"]


def test_a_log_in_json_is_no_events(log_server: Callable[[str, list[bytes]], int]) -> None:
    assert not follow.has_events(log_server("application/json", [b'{"lines": []}']), "any")


# --- answers, calls, processes


@pytest.mark.parametrize(
    ("answer", "complete"),
    [
        (b"HTTP/1.1 200 OK\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 201 Created\r\nA: b\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
    ],
)
def test_an_answer_is_whole_when_its_end_is_there(answer: bytes, complete: bool) -> None:
    assert whole(answer) is complete


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"])
def test_an_answer_that_is_no_success_ends_the_measurement(answer: bytes) -> None:
    with pytest.raises(AssertionError):
        whole(answer)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/containers/create?name=x", "/containers/create"),
        ("/containers/json?all=1", "/containers/json"),
        ("/containers/0123abcd/start", "/containers/ID/start"),
        ("/containers/0123abcd?force=1", "/containers/ID"),
        ("/images/team/hello:1/json", "/images/ID/json"),
        ("/info", "/info"),
    ],
)
def test_calls_of_one_kind_are_counted_together(path: str, expected: str) -> None:
    assert kind("GET", path) == f"GET {expected}"


@pytest.fixture
def engine_socket(tmp_path: Path) -> Iterator[Path]:
    """Answers whatever is asked with two bytes, on one connection."""
    path = tmp_path / "engine"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65536):
                    connection.sendall(b"ok")

        thread = threading.Thread(target=answer)
        thread.start()
        yield path
        thread.join()


def test_engine_calls_are_handed_on_and_counted(engine_socket: Path, tmp_path: Path) -> None:
    with EngineCalls(tmp_path / "proxy", str(engine_socket)) as calls, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "proxy"))
        for sent in (request("GET", "/v1.41/info"), request("POST", "/v1.41/containers/create"), b"bytes of a stream", request("GET", "/v1.41/info")):
            client.sendall(sent)
            assert client.recv(2) == b"ok"
        assert calls.counted == {"GET /info": 2, "POST /containers/create": 1}


def test_what_a_script_calls_inside_redis_is_no_trip(redis_server: RedisServer) -> None:
    with redis_server.client() as client, RedisTrips(redis_server.url) as trips:
        client.set("key", 1)
        client.eval("redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[1])", 1, "key")
    assert {name: trips.counted[name] for name in ("SET", "EVAL", "INCR")} == {"SET": 1, "EVAL": 1, "INCR": 0}


def test_copies_of_a_job_are_jobs_in_all_its_lists(redis_server: RedisServer) -> None:
    redis_server.flush()
    with redis_server.client() as client:
        client.mset({"dray:sequence": 1, "dray:job:A:log": "lines"})
        client.hset("dray:job:A", mapping={"spec": "{}", "sequence": 1})
        client.zadd("dray:jobs", {"A": 1})
        client.zadd("dray:finished", {"A": 99.5})
        last = stored.copies(client, stored.template(client, "A"), 3)
        assert client.zrange("dray:jobs", 0, -1, withscores=True)[-1] == (last.encode(), 4.0)
        assert [score for _, score in client.zrange("dray:finished", 0, -1, withscores=True)] == [99.5] * 4
        assert client.hgetall(f"dray:job:{last}") == {b"spec": b"{}", b"sequence": b"4"}
        assert client.get(f"dray:job:{last}:log") == b"lines"


def test_of_many_jobs_those_that_wait_can_be_taken_away(redis_server: RedisServer) -> None:
    redis_server.flush()
    with redis_server.client() as client:
        client.mset({"dray:job:A": 1, "dray:job:B": 1})
        client.zadd("dray:jobs", {"A": 1, "B": 2})
        client.zadd("dray:waiting", {"B": 2})
        stored.drop_waiting(client)
        assert (client.zrange("dray:jobs", 0, -1), sorted(client.keys("*"))) == ([b"A"], [b"dray:job:A", b"dray:jobs"])


def test_a_tree_is_a_process_and_what_it_started() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in processes.tree(os.getpid())
        assert processes.memory([child.pid]) > 0
        child.kill()
    assert child.pid not in processes.tree(os.getpid())


def test_the_time_of_children_that_have_ended_counts() -> None:
    before = processes.cpu(os.getpid())
    subprocess.run(["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"], check=True)
    assert processes.cpu(os.getpid()) > before
