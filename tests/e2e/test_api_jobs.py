"""What clients ask of jobs that really run: cancel, rerun, preflight, the live log, outputs of steps, idempotency keys."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kit.images import Images
from kit.process import until
from kit.serving import Served

FOLLOW = {"Accept": "text/event-stream"}


def _steps(*sources: str, **rest: Any) -> dict[str, Any]:
    return {"steps": [{"source": source} for source in sources], **rest}


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """(name, data)."""
    name = "message"
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
            name = "message"


def test_a_cancelled_job_ends_with_its_log_up_to_there_and_what_always_runs(dray: Served, image: Images) -> None:
    slow = image.shell("trap 'echo told; exit 1' TERM; echo began; sleep 60 & wait")
    after = {"source": image.shell('echo "$DRAY_STATUS $DRAY_REASON"'), "always": True}
    job_id = dray.post({"steps": [{"source": slow}, {"source": image("cat")}, after]})
    until(lambda: "began" in dray.log(job_id), 30, "the step runs")
    answer = dray.http.post(f"/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["cancelRequested"]) == (202, True)
    record = dray.wait(job_id)
    assert (record["status"], record["reason"], record["fault"], record["retryable"]) == ("error", "cancelled", "user", False)
    assert dray.log(job_id) == ["began", "told", "error cancelled"]
    assert dray.http.post(f"/jobs/{job_id}/cancel").status_code == 200


def test_what_always_runs_is_stopped_only_where_a_cancel_names_it(dray: Served, image: Images) -> None:
    after = {"source": image.shell("trap 'echo told; exit 0' TERM; echo began; sleep 60 & wait"), "always": True}
    job_id = dray.post({"steps": [{"source": image.shell("exit 3")}, after, after]})
    until(lambda: "began" in dray.log(job_id), 30, "the first of them runs")
    assert dray.http.post(f"/jobs/{job_id}/cancel").status_code == 202
    assert dray.record(job_id)["steps"][1]["state"] == "running"
    assert dray.http.post(f"/jobs/{job_id}/cancel?always=yes").status_code == 422
    assert dray.http.post(f"/jobs/{job_id}/cancel?always=true").status_code == 202
    record = dray.wait(job_id)
    assert (record["reason"], [step["state"] for step in record["steps"]]) == ("exit_code", ["error"] * 3)
    assert dray.log(job_id) == ["began", "told"]


def test_a_failed_job_goes_on_from_the_step_that_failed(dray: Served, image: Images) -> None:
    fails = image.shell("cat; exit 3")
    job_id = dray.post({**_steps(image("echo", "input"), image("tr", "a-z", "A-Z"), fails), "labels": {"kind": "rerun"}})
    first = dray.wait(job_id)
    assert (first["reason"], first["failedStep"]) == ("exit_code", 3)
    assert dray.http.get(f"/jobs/{job_id}/steps/2/output").content == b"INPUT\n"
    answer = dray.http.post(f"/jobs/{job_id}/rerun?from=3")
    assert answer.status_code == 201
    dray.http.delete(f"/jobs/{job_id}").raise_for_status()
    second = dray.wait(answer.json()["id"])
    assert (second["rerunOf"], second["reason"], second["stepsCompleted"]) == (job_id, "exit_code", 2)
    assert dray.log(second["id"]) == ["INPUT"]
    assert second["steps"][2]["sha256In"] == second["steps"][1]["sha256Out"] == first["steps"][1]["sha256Out"]
    assert [job["id"] for job in dray.http.get("/jobs?label=kind=rerun&status=error").json()] == [second["id"]]


def test_a_rerun_from_the_first_step_runs_all_of_them(dray: Served, image: Images) -> None:
    job_id = dray.run(_steps(image("echo", "once"), image("cat")))["id"]
    new_id = dray.http.post(f"/jobs/{job_id}/rerun").json()["id"]
    assert dray.wait(new_id)["status"] == "complete"
    assert dray.output(new_id) == dray.output(job_id) == b"once\n"


def test_an_output_too_large_to_be_kept_cannot_be_gone_on_from(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(DRAY_KEEP_OUTPUTS="1k")
    job_id = dray.run(_steps(image.shell("head -c 2000 /dev/zero"), image.shell("cat > /dev/null; exit 1")))["id"]
    assert dray.http.post(f"/jobs/{job_id}/rerun?from=2").status_code == 409
    assert dray.http.get(f"/jobs/{job_id}/steps/1/output").status_code == 404
    assert dray.http.post(f"/jobs/{job_id}/rerun?from=1").status_code == 201


def test_preflight_pins_images_that_are_there_and_names_what_is_not(dray: Served, image: Images) -> None:
    posted = {"steps": [{"source": image("echo", "pinned")}]}
    until(lambda: "dray_operators_alive 1.0" in dray.http.get("/metrics").text, 30, "the operator is there")
    answer = dray.http.post("/jobs?preflight=true", json=posted)
    assert answer.status_code == 201, answer.text
    record = dray.wait(answer.json()["id"])
    assert record["status"] == "complete"
    assert "sha256:" in record["steps"][0]["image"]
    bad = {"steps": [*posted["steps"], {"source": "localhost:1/none", "environment": [{"variable": "A", "secret": "none"}]}]}
    refused = dray.http.post("/jobs?preflight=true", json=bad)
    assert refused.status_code in (422, 503), refused.text
    assert "steps[1]" in refused.text


def test_lines_are_followed_while_the_job_runs(dray: Served, image: Images) -> None:
    first, second = image.shell("echo one; sleep 0.5; echo two >&2; sleep 0.5; echo three"), image.shell("cat > /dev/null; echo four")
    job_id = dray.post(_steps(first, second))
    seen: list[tuple[float, Any]] = []
    with dray.http.stream("GET", f"/jobs/{job_id}/log", headers=FOLLOW) as answer:
        for name, data in _events(answer.iter_lines()):
            seen.append((time.monotonic(), data))
            if name == "end":
                break
    lines = [(data["seq"], data["step"], data["stream"], data["line"]) for _, data in seen[:-1]]
    assert lines == [(0, 1, "stdout", "one"), (1, 1, "stderr", "two"), (2, 1, "stdout", "three"), (3, 2, "stdout", "four")]
    assert seen[-1][1] == dray.record(job_id)
    assert seen[-1][1]["status"] == "complete"
    assert seen[2][0] - seen[0][0] > 0.5


def test_a_key_is_remembered_when_dray_is_killed(dray: Served, image: Images) -> None:
    posted, headers = _steps(image("echo", "once")), {"Idempotency-Key": "once"}
    first = dray.http.post("/jobs", json=posted, headers=headers)
    dray.kill()
    dray.start()
    again = dray.http.post("/jobs", json=posted, headers=headers)
    assert (again.status_code, again.text) == (201, first.text)
    assert len(dray.http.get("/jobs").json()) == 1
    assert dray.wait(first.json()["id"])["status"] == "complete"
    assert dray.http.post("/jobs", json=_steps("other"), headers=headers).status_code == 422


@pytest.mark.full
def test_many_jobs_are_listed_while_they_run(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(DRAY_JOBS="8")
    source = image("true")
    posted = [dray.post({"steps": [{"source": source}], "labels": {"round": str(number % 2)}}) for number in range(60)]
    until(lambda: not dray.http.get("/jobs?status=running&limit=1").json(), 120, "all have ended")
    assert [job["id"] for job in dray.http.get("/jobs?status=complete&limit=1000").json()] == posted
    assert [job["id"] for job in dray.http.get("/jobs?label=round=1&order=newest").json()] == posted[1::2][::-1]


def test_finished_jobs_go_after_a_number_or_a_time_with_all_that_is_theirs(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(DRAY_KEEP_JOBS="1")
    big = {"steps": [{"source": image("head", "-c", "100000", "/dev/zero")}]}
    ids = [str(dray.run(big)["id"]) for _ in range(3)]
    until(lambda: [job["id"] for job in dray.http.get("/jobs").json()] == ids[-1:], 60, "the last one is left")
    until(lambda: [folder.name for folder in (dray.data_dir / "outputs").iterdir()] == ids[-1:], 30, "and its output alone")
    assert dray.output(ids[-1]) == bytes(100000)
    assert dray.http.get(f"/jobs/{ids[0]}").status_code == 404
    dray.stop()
    timed = serve(DRAY_KEEP_TIME="1")
    job_id = timed.post(big)
    until(lambda: timed.http.get(f"/jobs/{job_id}").status_code == 404, 60, "it goes")
    until(lambda: not list((timed.data_dir / "outputs").iterdir()), 30, "its output too")


def test_a_job_goes_so_long_after_its_end_as_it_says_with_all_that_is_its_own(dray: Served, image: Images) -> None:
    big = {"steps": [{"source": image("head", "-c", "100000", "/dev/zero")}]}
    stays = dray.run(big)["id"]
    goes = dray.post({**big, "ttlSecondsAfterFinished": 0})
    until(lambda: dray.http.get(f"/jobs/{goes}").status_code == 404, 60, "it goes")
    until(lambda: [folder.name for folder in (dray.data_dir / "outputs").iterdir()] == [stays], 30, "its output too")
    assert dray.http.get(f"/jobs/{goes}/log").status_code == 404
    assert dray.output(stays) == bytes(100000)
