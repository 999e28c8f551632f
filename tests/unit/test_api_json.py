"""Dray's JSON: times, indexes, ids, log lines and bodies, at their corners."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dray.errors import Invalid, Malformed
from dray.reason import Reason
from dray.record import Job, Past, Phase, StepState, Told, new_job
from dray.spec import parse
from dray_api import body, jobs, openapi, params, shapes

NOON = 1_465_575_323_794_364  # 2016-06-10 16:15:23.794364 UTC


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (NOON, "2016-06-10 16:15:23.794364 +0000 UTC"),
        (1_465_575_323_794_000, "2016-06-10 16:15:23.794 +0000 UTC"),
        (1_465_575_323_100_000, "2016-06-10 16:15:23.1 +0000 UTC"),
        (1_465_575_323_000_000, "2016-06-10 16:15:23 +0000 UTC"),
        (1_465_575_323_000_001, "2016-06-10 16:15:23.000001 +0000 UTC"),
        (1_465_575_320_000_000, "2016-06-10 16:15:20 +0000 UTC"),
        (0, "1970-01-01 00:00:00 +0000 UTC"),
    ],
)
def test_a_time_is_written_as_go_writes_it(microseconds: int, text: str) -> None:
    assert jobs.go_time(microseconds) == text


@pytest.mark.parametrize(("microseconds", "text"), [(NOON, "2016-06-10T16:15:23.794364Z"), (0, "1970-01-01T00:00:00.000000Z"), (None, None)])
def test_a_time_for_machines_always_has_its_microseconds(microseconds: int | None, text: str | None) -> None:
    assert jobs.rfc3339(microseconds) == text


def test_ids_have_the_readmes_shape_and_differ() -> None:
    ids = {jobs.new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}", job_id) for job_id in ids)
    assert all(jobs.may_be_id(job_id) for job_id in ids)


@pytest.mark.parametrize("text", ["", "x:log", "a" * 65, "a b", "a\n", "a\0", "é", "a/b", "{x}"])
def test_what_cannot_be_an_id(text: str) -> None:
    assert not jobs.may_be_id(text)


@given(st.integers(-(10**40), 10**40))
def test_a_whole_number_is_its_index_as_far_as_lines_go(number: int) -> None:
    assert params.index_of(str(number)) == number or (abs(number) >= 10**18 and params.index_of(str(number)) * number > 2**53)


@given(st.text())
def test_any_text_has_an_index(text: str) -> None:
    index = params.index_of(text)
    assert index == 0 or re.fullmatch(r"[+-]?[0-9]+", text)


@pytest.mark.parametrize("text", ["1", "007", "10" * 40])
def test_a_limit_is_a_whole_number(text: str) -> None:
    limit = params.limit_of(text)
    assert limit == int(text) or (limit or 0) > 2**53


@pytest.mark.parametrize("text", ["", "0", "00", "-1", "+1", " 1", "1 ", "1\n", "1.0", "x", "٣"])
def test_a_limit_is_nothing_else(text: str) -> None:
    with pytest.raises(Invalid, match="limit: must be a whole number of at least 1"):
        params.limit_of(text)


@given(st.lists(st.binary().map(lambda raw: raw.replace(b"\n", b"")), min_size=1))
def test_lines_decoded_together_are_as_if_decoded_one_by_one(lines: list[bytes]) -> None:
    assert jobs.texts(lines) == [line.decode(errors="replace") for line in lines]


@given(st.lists(st.sampled_from([b"\xe2\x82", b"\xf0\x9f", b"\xc3", b"\xed\xa0", b"\x80", b"\xff", b"ok", b""]), min_size=1))
def test_a_character_cut_short_at_a_lines_end_does_not_reach_into_the_next(lines: list[bytes]) -> None:
    assert jobs.texts(lines) == [line.decode(errors="replace") for line in lines]


# --- records


def test_a_job_that_waits_is_running_to_its_clients() -> None:
    record = jobs.record(new_job("ID", parse({"steps": [{"source": "a"}]}), NOON))
    assert record["status"] == "running"
    assert "finishedIn" not in record
    assert "reason" not in record
    assert [step["state"] for step in record["steps"]] == ["waiting"]


def test_a_failed_job_says_why_and_how_long_it_took() -> None:
    job = new_job("ID", parse({"steps": [{"source": "a"}, {"source": "b"}]}), NOON)
    steps = (StepState(Phase.COMPLETE), StepState(Phase.ERROR, exit_code=3))
    failed = replace(job, phase=Phase.ERROR, steps=steps, reason=Reason.EXIT_CODE, message="step 2 (b): exit code 3", finished_at=NOON + 1_500_000)
    record = jobs.record(failed)
    assert (record["status"], record["stepsCompleted"], record["finishedIn"]) == ("error", 1, 1.5)
    assert (record["reason"], record["message"]) == ("exit_code", "step 2 (b): exit code 3")


def test_a_clock_set_back_makes_no_negative_time() -> None:
    job = replace(new_job("ID", parse({"steps": [{"source": "a"}]}), NOON), phase=Phase.COMPLETE, finished_at=NOON - 1)
    assert jobs.record(job)["finishedIn"] == 0


def _full() -> Job:
    """With all that a record may have."""
    steps = [{"source": "a", "name": "first"}, {"source": "b", "retries": 3}, {"source": "c", "always": True}]
    job = new_job("ID", parse({"name": "job", "labels": {"team": "a"}, "steps": steps, "environment": [{"variable": "A", "value": "hunter2"}]}), NOON)
    past = (Past(1, Reason.LOST, None, NOON, NOON + 1), Past(2, Reason.EXIT_CODE, 3, None, NOON + 2))
    first = StepState(Phase.COMPLETE, exit_code=0, bytes_in=0, bytes_out=3, sha256="aa")
    second = StepState(Phase.WAITING, attempt=3, past=past, retry_at=NOON, bytes_in=3)
    return replace(
        job,
        steps=(first, second, StepState()),
        phase=Phase.RUNNING,
        pins=("a@1", "b@2", "c@3"),
        reason=Reason.OUT_OF_MEMORY,
        failed=1,
        message="step 2 (b): out of memory",
        stderr=("killed",),
        origin="FIRST",
        told=Told(cancelled=1, held=True),
    )


def test_a_record_has_what_there_is_to_say() -> None:
    record = jobs.record(_full())
    assert list(record)[:4] == ["id", "stepsCompleted", "status", "createdAt"]
    assert (record["status"], record["labels"], record["rerunOf"], record["cancelRequested"], record["held"]) == ("running", {"team": "a"}, "FIRST", True, True)
    assert (record["reason"], record["fault"], record["retryable"], record["failedStep"]) == ("out_of_memory", "user", True, 2)
    assert (record["message"], record["stderr"]) == ("step 2 (b): out of memory", ("killed",))
    assert "hunter2" not in str(record)


def test_steps_have_their_attempts_hashes_and_images() -> None:
    first, second, last = jobs.record(_full())["steps"]
    assert (first["sha256In"], first["sha256Out"], first["image"], first["attempts"]) == (None, "aa", "a@1", [])
    assert (second["sha256In"], second["sha256Out"], second["retryAt"]) == ("aa", None, "2016-06-10T16:15:23.794364Z")
    assert second["attempts"] == [
        {"attempt": 1, "reason": "lost", "exitCode": None, "startedAt": "2016-06-10T16:15:23.794364Z", "finishedAt": "2016-06-10T16:15:23.794365Z"},
        {"attempt": 2, "reason": "exit_code", "exitCode": 3, "startedAt": None, "finishedAt": "2016-06-10T16:15:23.794366Z"},
    ]
    assert (last["always"], last["sha256In"]) == (True, None)


def test_what_is_over_is_no_longer_asked_for() -> None:
    record = jobs.record(replace(_full(), phase=Phase.ERROR, finished_at=NOON + 5))
    assert not {"cancelRequested", "held"} & record.keys()


@pytest.mark.parametrize("job", [_full(), new_job("ID", parse({"steps": [{"source": "a"}]}), NOON), replace(_full(), phase=Phase.ERROR, finished_at=NOON)])
def test_the_record_is_as_the_document_describes_it(job: Job) -> None:
    record = orjson.loads(orjson.dumps(jobs.record(job)))
    described = shapes.JobRecord.model_validate(record)
    assert described.model_dump(mode="json", exclude_unset=True) == record


# --- jobs as posted


def test_a_job_comes_back_as_it_was_posted_without_what_is_empty() -> None:
    given = {
        "name": "job",
        "steps": [
            {
                "name": "all",
                "source": "a",
                "command": ["sh"],
                "args": ["-c", ""],
                "workdir": "/",
                "environment": [{"variable": "A", "value": ""}, {"variable": "B", "secret": "b"}],
                "output": "stdout",
                "refresh": True,
                "timeout": 1.5,
                "retries": 1,
                "resources": {"cpu": "500m", "memory": 67108864},
                "mounts": [{"volume": "v", "path": "/v"}],
            },
            {"source": "b", "always": True},
        ],
        "environment": [{"variable": "C", "value": "c"}],
        "timeout": 60.0,
        "labels": {"team": "a"},
        "network": "none",
    }
    empty = {"description": "unknown", "environment": [], "labels": {}}
    assert orjson.loads(orjson.dumps(jobs.posted("ID", parse(given)))) == {"id": "ID", **given}
    assert jobs.posted("ID", parse(empty | {"steps": [{"source": "a", "refresh": False, "output": "", "args": [], "retries": 0}]})) == {
        "id": "ID",
        "steps": [{"source": "a"}],
    }


# --- bodies


def test_just_as_deep_as_the_limit_is_taken() -> None:
    assert body.decode(b"[" * body.MAX_DEPTH + b"]" * body.MAX_DEPTH)
    with pytest.raises(Malformed, match="deeper than 32"):
        body.decode(b"[" * (body.MAX_DEPTH + 1) + b"]" * (body.MAX_DEPTH + 1))


def test_brackets_in_strings_and_side_by_side_are_no_depth() -> None:
    assert body.decode(b'["' + b"[" * 1000 + b'"]') == ["[" * 1000]
    assert body.decode(b"[" + b",".join([b"[{}]"] * 1000) + b"]") == [[{}]] * 1000


_VALUES = st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=60)


@given(_VALUES, st.integers(0, 6))
def test_depth_is_counted_as_a_recursion_would(value: object, levels: int) -> None:
    def depth(part: object) -> int:
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    assert body.deeper([value], levels) == (1 + depth(value) > levels)


@pytest.mark.parametrize(("raw", "where"), [(b"\xff", "line 1, column 1"), (b"{\n\xc3", "line 2, column 1"), (b'\n\n "\xed\xa0\x80"', "line 3, column 3")])
def test_bytes_that_are_no_utf8_are_found(raw: bytes, where: str) -> None:
    with pytest.raises(Malformed, match=where):
        body.decode(raw)


def test_the_documented_limits_are_the_codes() -> None:
    rows = "".join(f"| {what} | {limit} |\n" for what, limit in openapi.LIMITS.items())
    assert f"| what | limit |\n|---|---|\n{rows}\n" in (Path(__file__).parents[2] / "docs" / "api.md").read_text()
