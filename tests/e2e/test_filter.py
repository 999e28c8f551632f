"""A job as a filter: one call, whose body is the first step's stdin and whose answer the last step's output."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from kit.dray import DRAY, environment
from kit.images import Images
from kit.process import until
from kit.serving import Served

MIB = 2**20


def a_job(*sources: str | dict[str, Any]) -> dict[str, Any]:
    return {"steps": [source if isinstance(source, dict) else {"source": source} for source in sources]}


def filtered(dray: Served, job: dict[str, Any], content: Any, query: str = "", **headers: str) -> httpx.Response:
    """`content`: bytes are sent with their length, an iterator of them in chunks."""
    return dray.http.post(f"/filter{query}", content=content, headers={"Dray-Job": json.dumps(job), **headers}, timeout=120)


def random_blocks(size: int, seed: int = 1) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(size // MIB):
        yield chance.randbytes(MIB)
    yield chance.randbytes(size % MIB)


def ids(dray: Served) -> list[str]:
    return [job["id"] for job in dray.http.get("/jobs").json()]


def kept(dray: Served) -> list[str]:
    """What lies in the output store."""
    root = dray.data_dir / "outputs"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) if root.exists() else []


def half_sent(dray: Served, job: dict[str, Any], content: bytes, length: int | None = None) -> socket.socket:
    """A connection on which so much of a body was sent, and more is said to come: in chunks, or as `length` bytes."""
    connection = socket.create_connection(("127.0.0.1", dray.port), timeout=30)
    kind = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    connection.sendall(f"POST /filter HTTP/1.1\r\nHost: localhost\r\nDray-Job: {json.dumps(job)}\r\n{kind}\r\n\r\n".encode())
    connection.sendall(b"%x\r\n%b\r\n" % (len(content), content) if length is None else content)
    return connection


# --- what comes out


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3 * MIB + 7], ids=str)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_what_goes_in_comes_out_byte_for_byte(dray: Served, image: Images, size: int, chunked: bool) -> None:
    content = b"".join(random_blocks(size))
    answer = filtered(dray, a_job(image("cat"), image("cat")), random_blocks(size) if chunked else content)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    assert answer.content == content
    [job_id] = ids(dray)
    assert answer.headers["content-location"] == f"/jobs/{job_id}/output"
    assert dray.output(job_id) == content
    first = dray.record(job_id)["steps"][0]
    assert (first["bytesIn"], first["sha256In"]) == (size, hashlib.sha256(content).hexdigest() if size else None)
    given = dray.http.get(f"/jobs/{job_id}/input")
    assert (given.status_code, given.content == content) == ((200, True) if size else (404, False))


def test_64_mib_of_random_bytes(dray: Served, image: Images) -> None:
    answer = filtered(dray, a_job(image("cat"), image("cat")), random_blocks(64 * MIB))
    assert answer.status_code == 200
    digest = hashlib.sha256(b"".join(random_blocks(64 * MIB))).hexdigest()
    assert hashlib.sha256(answer.content).hexdigest() == digest
    assert {step["sha256In"] for step in dray.record(ids(dray)[0])["steps"]} == {digest}


def test_the_first_step_reads_the_input_again_at_each_attempt(dray: Served, image: Images) -> None:
    flaky = image.shell("cat > /tmp/x; [ $DRAY_ATTEMPT = 2 ] || exit 1; cat /tmp/x")
    assert filtered(dray, a_job({"source": flaky, "retries": 1}), b"x" * 100_000).content == b"x" * 100_000


def test_a_step_need_not_read_its_input(dray: Served, image: Images) -> None:
    assert filtered(dray, a_job(image("echo", "hi")), b"x" * 300_000).content == b"hi\n"


def test_steps_that_always_run_have_ended_when_it_answers(dray: Served, image: Images) -> None:
    job = a_job(image("cat"), {"source": image.shell("sleep 1; wc -c"), "always": True})
    answer = filtered(dray, job, b"some")
    assert answer.content == b"some"
    assert dray.log(ids(dray)[0])[-1] == "0"


# --- what goes wrong


@pytest.mark.parametrize("failing", [1, 2])
def test_a_step_that_fails_is_told_by_status(dray: Served, image: Images, failing: int) -> None:
    steps = [image("cat"), image("cat")]
    steps[failing - 1] = image.shell("cat; echo no such luck >&2; exit 3")
    answer = filtered(dray, a_job(*steps), b"x" * 100_000)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    [job_id] = ids(dray)
    assert (problem["title"], problem["detail"].startswith(f"step {failing} ")) == ("Job failed", True)
    assert problem["job"] == dray.record(job_id)
    assert (problem["job"]["id"], problem["job"]["reason"], problem["job"]["failedStep"]) == (job_id, "exit_code", failing)
    assert (problem["job"]["steps"][failing - 1]["exitCode"], problem["job"]["stderr"]) == (3, ["no such luck"])


@pytest.mark.parametrize("length", [None, 10 * MIB], ids=["chunked", "length"])
def test_a_client_that_goes_away_in_mid_body_leaves_nothing(dray: Served, image: Images, length: int | None) -> None:
    for size in (100, 5 * MIB):
        connection = half_sent(dray, a_job(image("wc", "-c")), b"x" * size, length)
        if size > MIB:
            until(lambda: kept(dray) != [], 20, "it is being stored")
        connection.close()
        until(lambda: kept(dray) == [], 20, "nothing is kept")
        until(lambda: list((dray.data_dir / "outputs").glob("*")) == [], 20, "no folder either")
    assert ids(dray) == []


def test_a_client_that_goes_away_while_the_job_runs_ends_it(dray: Served, image: Images) -> None:
    connection = half_sent(dray, a_job(image.shell("echo on; sleep 60")), b"all of it", 9)
    until(lambda: ids(dray) != [] and dray.log(ids(dray)[0]) == ["on"], 30, "it runs")
    connection.close()
    record = dray.wait(ids(dray)[0])
    assert (record["status"], record["reason"]) == ("error", "cancelled")


def test_with_a_key_it_runs_on_and_can_be_asked_for_again(dray: Served, image: Images) -> None:
    job, headers = a_job(image.shell("echo on >&2; sleep 3; cat")), {"Idempotency-Key": "k"}
    with pytest.raises(httpx.ReadTimeout):
        dray.http.post("/filter", content=b"in", headers={"Dray-Job": json.dumps(job), **headers}, timeout=1.5)
    assert filtered(dray, job, b"in", **headers).content == b"in"
    assert len(ids(dray)) == 1
    assert filtered(dray, job, b"other", **headers).status_code == 422
    for content in (b"y" * 200_000, b"y" * 200_000):
        assert filtered(dray, job, content, **{"Idempotency-Key": "large"}).content == content
    assert len(ids(dray)) == 2
    assert kept(dray) == [f"{ids(dray)[1]}/0", f"{ids(dray)[1]}/input"]


def answered(dray: Served, image: Images, meanwhile: Callable[[str], httpx.Response]) -> httpx.Response:
    """The answer of POST /filter, given what is done to the job while it runs."""
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(filtered, dray, a_job(image.shell("echo on; sleep 10")), b"x")
        until(lambda: ids(dray) != [] and dray.log(ids(dray)[0]) == ["on"], 30, "it runs")
        meanwhile(ids(dray)[0]).raise_for_status()
        return asking.result(60)


def test_a_job_cancelled_meanwhile_is_told_by_status(dray: Served, image: Images) -> None:
    answer = answered(dray, image, lambda job_id: dray.http.post(f"/jobs/{job_id}/cancel"))
    assert (answer.status_code, answer.json()["job"]["reason"]) == (422, "cancelled")


def test_a_job_deleted_meanwhile_is_not_found(dray: Served, image: Images) -> None:
    assert answered(dray, image, lambda job_id: dray.http.delete(f"/jobs/{job_id}")).status_code == 404


def test_a_reader_that_goes_away_harms_nobody(dray: Served, image: Images) -> None:
    with dray.http.stream("POST", "/filter", content=b"x" * 20 * MIB, headers={"Dray-Job": json.dumps(a_job(image("cat")))}, timeout=60) as answer:
        assert answer.status_code == 200
        next(answer.iter_raw(100))
    [job_id] = ids(dray)
    assert dray.record(job_id)["status"] == "complete"
    assert len(dray.output(job_id)) == 20 * MIB


# --- what is killed


def test_a_server_killed_in_mid_body_leaves_nothing_for_long(dray: Served, image: Images) -> None:
    with suppress(OSError):
        connection = half_sent(dray, a_job(image("wc", "-c")), b"x" * 5 * MIB)
        until(lambda: kept(dray) != [], 20, "it is being stored")
        dray.kill()
        connection.close()
    dray.start()
    assert ids(dray) == []
    with Redis.from_url(f"unix://{dray.data_dir}/redis/redis.sock") as redis:
        assert redis.zcard("dray:uploads") == 1
    until(lambda: kept(dray) == [], 60, "the lease is over, and what was left removed")


def test_a_server_killed_while_the_job_runs_changes_nothing(dray: Served, image: Images) -> None:
    job = a_job(image.shell("sleep 1; cat"), image.shell("cat; sleep 1"))
    content = b"y" * 3 * MIB
    for seconds in (0.2, 1.5):
        answer = dray.http.post("/filter?wait=false", content=content, headers={"Dray-Job": json.dumps(job)})
        assert answer.status_code == 201
        time.sleep(seconds)
        dray.kill()
        dray.start()
        job_id = answer.json()["id"]
        assert answer.headers["location"] == f"/jobs/{job_id}"
        assert dray.wait(job_id)["status"] == "complete"
        assert dray.output(job_id) == content


def test_a_server_that_is_stopped_says_so_and_the_job_goes_on(dray: Served, image: Images) -> None:
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(filtered(dray, a_job(image.shell("echo on >&2; sleep 3; cat")), b"in")))
    asking.start()
    until(lambda: ids(dray) != [] and dray.log(ids(dray)[0]) == ["on"], 30, "it runs")
    dray.stop()
    asking.join(60)
    [answer] = answers
    dray.start()
    [job_id] = ids(dray)
    assert (answer.status_code, f"/jobs/{job_id}/output" in answer.json()["detail"]) == (503, True)
    assert dray.wait(job_id)["status"] == "complete"
    assert dray.output(job_id) == b"in"


# --- limits


def test_a_body_larger_than_the_limit_is_refused(serve: Any, image: Images) -> None:
    dray = serve(DRAY_INPUT_CAP="1MiB")
    job = a_job(image("wc", "-c"))
    assert filtered(dray, job, b"x" * MIB).content == b"1048576\n"
    for content in (b"x" * (MIB + 1), random_blocks(MIB + 1), random_blocks(40 * MIB)):
        answer = filtered(dray, job, content)
        assert (answer.status_code, "DRAY_INPUT_CAP" in answer.json()["detail"]) == (413, True)
    assert len(ids(dray)) == 1


def test_no_room_for_the_body_is_told(serve: Any, image: Images) -> None:
    free = os.statvfs("/tmp").f_bavail * os.statvfs("/tmp").f_frsize
    dray = serve(DRAY_DISK_FLOOR=str(free + 2**40))
    answer = filtered(dray, a_job(image("cat")), b"x" * MIB)
    assert (answer.status_code, "DRAY_DISK_FLOOR" in answer.json()["detail"]) == (507, True)
    assert (ids(dray), kept(dray)) == ([], [])


def test_a_client_that_waits_to_be_told_sends_nothing_in_vain(dray: Served, image: Images) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", dray.port, timeout=30)
    connection.putrequest("POST", "/filter")
    for name, value in (("Dray-Job", '{"steps": []}'), ("Expect", "100-continue"), ("Content-Length", str(10 * MIB))):
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["errors"][0]["field"]) == (422, "steps")
    connection.close()


# --- again


def test_a_job_is_run_again_with_its_input(dray: Served, image: Images) -> None:
    for size in (10, 200_000):
        filtered(dray, a_job(image.shell("cat; echo 1"), image.shell("cat; echo 2")), b"x" * size)
        first = ids(dray)[-1]
        again = [dray.http.post(f"/jobs/{first}/rerun", params={"from": step}).json()["id"] for step in ((1, 2) if size == 10 else (1,))]
        dray.http.delete(f"/jobs/{first}").raise_for_status()
        for job_id in again:
            assert dray.wait(job_id)["status"] == "complete"
            assert dray.output(job_id) == b"x" * size + b"1\n2\n"
            assert dray.http.get(f"/jobs/{job_id}/input").content == b"x" * size


def test_an_input_goes_with_its_job(dray: Served, image: Images) -> None:
    filtered(dray, a_job(image("wc", "-c")), b"x" * MIB)
    [job_id] = ids(dray)
    assert kept(dray) == [f"{job_id}/input"]
    dray.http.delete(f"/jobs/{job_id}").raise_for_status()
    until(lambda: kept(dray) == [], 30, "nothing is kept")


# --- much


def peak(process: int) -> int:
    """The most bytes it has had resident."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_gigabyte_takes_no_more_memory_than_a_little(dray: Served, image: Images) -> None:
    job, headers = a_job(image("cat"), image("cat")), {}
    for size in (2 * MIB, 1024 * MIB):
        sent, received = hashlib.sha256(), hashlib.sha256()

        def blocks(size: int = size, sent: Any = sent) -> Iterator[bytes]:
            for block in random_blocks(size):
                sent.update(block)
                yield block

        headers = {"Dray-Job": json.dumps(job)}
        with dray.http.stream("POST", "/filter", content=blocks(), headers=headers, timeout=600) as answer:
            assert answer.status_code == 200
            for block in answer.iter_raw():
                received.update(block)
        assert sent.hexdigest() == received.hexdigest()
        if size == 2 * MIB:
            before = peak(dray.process.pid)
    after = peak(dray.process.pid)
    print(f"peak: {before / MIB:.0f} MiB, after a gigabyte {after / MIB:.0f} MiB")
    assert after - before < 80 * MIB


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_gigabyte_takes_the_client_no_more_memory_than_a_little(dray: Served, image: Images, tmp_path: Path) -> None:
    peaks = []
    for size in (2 * MIB, 1024 * MIB):
        with (tmp_path / "in").open("wb") as file:
            for block in random_blocks(size):
                file.write(block)
        with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout, (tmp_path / "told").open("wb") as told:
            words = [DRAY, "run", "--step", f"{image('true')} sha256sum", "--step", image("cat")]
            process = subprocess.Popen(words, env=environment() | {"DRAY_SERVER": dray.url}, stdin=stdin, stdout=stdout, stderr=told)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, (tmp_path / "told").read_text()
        with (tmp_path / "in").open("rb") as file:
            assert (tmp_path / "out").read_text() == f"{hashlib.file_digest(file, 'sha256').hexdigest()}  -\n"
        peaks.append(used.ru_maxrss * 1024)
    print(f"peaks: {' and '.join(f'{peak / MIB:.0f} MiB' for peak in peaks)}")
    assert peaks[1] < peaks[0] + 20 * MIB
