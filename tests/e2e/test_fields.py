"""Each field of a job and each reason of its end, on the real engine, through the real API."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError

from kit.images import Images
from kit.process import until
from kit.serving import Served

SECRET = "open sesame"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the host's that jobs may mount; its neighbour holds the operator's secrets."""
    made = tmp_path_factory.mktemp("host")
    (made / "file").write_text("of the host\n")
    return made


@pytest.fixture(scope="module")
def dray(redis: None, engine: docker.DockerClient, folder: Path) -> Iterator[Served]:
    """One for all tests of this file."""
    kept = folder.parent / "secrets"
    kept.mkdir()
    (kept / "key").write_text(SECRET + "\n")
    env = {"DRAY_SECRETS": str(kept), "DRAY_HOST_PATHS": str(folder), "DRAY_LIMITS_MAX": "memory=64Mi", "DRAY_GRACE": "1", "DRAY_DISK_FLOOR": "0"}
    served = Served(engine, (), env)
    yield served
    served.close()


@pytest.fixture
def shell(image: Images) -> Callable[..., dict[str, Any]]:
    """shell(script, **fields): a step."""
    return lambda script, **fields: {"source": image("true"), "command": ["sh", "-c", script], **fields}


Shell = Callable[..., dict[str, Any]]


def complete(dray: Served, *steps: dict[str, Any], **fields: Any) -> list[str]:
    """The log of a job that must end well."""
    job_id = dray.post({"steps": steps, **fields})
    record = dray.wait(job_id)
    assert record["status"] == "complete", record
    return dray.log(job_id)


def failed(dray: Served, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The record of a job that must not."""
    record = dray.run({"steps": steps, **fields})
    assert record["status"] == "error", record
    return record


def refused(dray: Served, *steps: dict[str, Any], query: str = "", **fields: Any) -> list[str]:
    """The fields for which it is not taken."""
    answer = dray.http.post(f"/jobs{query}", json={"steps": steps, **fields})
    assert answer.status_code == 422, answer.text
    return [error["field"] for error in answer.json()["errors"]]


# --- what a step finds


def test_a_step_knows_where_it_stands(dray: Served, shell: Shell) -> None:
    says = shell("echo $DRAY_JOB_NAME $DRAY_STEP_INDEX $DRAY_STEP_NAME $DRAY_ATTEMPT; test ${#DRAY_JOB_ID} = 36", name="here")
    assert complete(dray, says, says, name="a job") == ["a job 1 here 1", "a job 2 here 1"]


def test_command_arguments_and_working_directory(dray: Served, image: Images) -> None:
    own = image("echo", "not this", entrypoint=["sh", "-c", 'echo "of the image: $0 $1"'])
    steps = [{"source": own, "args": ["a b", "c"]}, {"source": own, "command": ["sh", "-c", "pwd"], "workdir": "/usr"}]
    assert complete(dray, *steps) == ["of the image: a b c", "/usr"]


def test_a_secret_reaches_the_step_and_no_log(dray: Served, shell: Shell) -> None:
    step = shell(f'test "$KEY" = "{SECRET}" && echo "it is $KEY"', environment=[{"variable": "KEY", "secret": "key"}])
    (line,) = complete(dray, step)
    assert line.startswith("it is ")
    assert SECRET not in line


def test_a_secret_that_is_not_there(dray: Served, shell: Shell) -> None:
    record = failed(dray, shell("true", environment=[{"variable": "KEY", "secret": "none"}]))
    assert (record["reason"], record["fault"], record["failedStep"]) == ("secret_not_found", "user", 1)


# --- time


@pytest.mark.parametrize("where", ["step", "job"])
def test_a_timeout_ends_the_step_and_the_log_up_to_its_end_is_kept(dray: Served, shell: Shell, where: str) -> None:
    slow = shell("trap 'echo told; exit 0' TERM; echo begun; sleep 60 & wait", **({"timeout": 1} if where == "step" else {}))
    job_id = dray.post({"steps": [slow, shell("cat")], **({"timeout": 2} if where == "job" else {})})
    record = dray.wait(job_id)
    assert (record["status"], record["reason"], record["failedStep"]) == ("error", "timed_out", 1)
    assert dray.log(job_id) == ["begun", "told"]


def test_what_does_not_heed_term_is_killed(dray: Served, shell: Shell) -> None:
    record = failed(dray, shell("trap '' TERM; while :; do sleep 1; done", timeout=1))
    assert record["reason"] == "timed_out"


# --- retries


def test_another_attempt_gets_the_whole_input_again(dray: Served, shell: Shell) -> None:
    flaky = shell('cat > /tmp/x; test $DRAY_ATTEMPT = 2 || { echo "lost cause" >&2; exit 9; }; cat /tmp/x', retries=2)
    job_id = dray.post({"steps": [shell("echo one; echo two"), flaky, shell("wc -l")]})
    record = dray.wait(job_id)
    assert record["status"] == "complete"
    assert dray.output(job_id).strip() == b"2"
    assert record["steps"][1]["attempt"] == 2
    assert [(past["attempt"], past["reason"], past["exitCode"]) for past in record["steps"][1]["attempts"]] == [(1, "exit_code", 9)]


def test_retries_come_to_an_end(dray: Served, shell: Shell) -> None:
    record = failed(dray, shell("echo attempt $DRAY_ATTEMPT >&2; exit 7", retries=1), shell("cat"))
    assert (record["reason"], record["retryable"], record["stderr"]) == ("exit_code", True, ["attempt 2"])
    assert [record["steps"][0][name] for name in ("attempt", "exitCode")] == [2, 7]


# --- what a step may use


def test_a_step_over_its_memory_is_out_of_memory(dray: Served, shell: Shell) -> None:
    record = failed(dray, shell("tail /dev/zero", resources={"memory": "16Mi"}))
    assert (record["reason"], record["fault"]) == ("out_of_memory", "user")


def test_more_than_the_operator_allows_is_not_taken(dray: Served, shell: Shell) -> None:
    assert refused(dray, shell("true", resources={"memory": "65Mi"})) == ["steps[0].resources.memory"]


def test_processes_are_counted(dray: Served, shell: Shell) -> None:
    few = shell("for i in 1 2 3 4 5 6 7 8; do sleep 3 & done; wait", resources={"pids": 4})
    assert failed(dray, few)["reason"] == "exit_code"


def test_a_named_volume_outlives_its_job(dray: Served, shell: Shell) -> None:
    name = f"test-{secrets.token_hex(4)}"
    try:
        complete(dray, shell("echo kept > /keep/file", mounts=[{"volume": name, "path": "/keep"}]))
        assert complete(dray, shell("cat /keep/file", mounts=[{"volume": name, "path": "/keep", "readOnly": True}])) == ["kept"]
    finally:
        until(lambda: _removed(dray.engine, f"dray-volume-{name}"), 20, "no container uses the volume")


def _removed(engine: docker.DockerClient, volume: str) -> bool:
    try:
        engine.volumes.get(volume).remove()
    except APIError:
        return False
    return True


def test_a_folder_of_the_host_only_where_the_operator_allows_it(dray: Served, shell: Shell, folder: Path) -> None:
    assert complete(dray, shell("cat /here/file", mounts=[{"hostPath": str(folder), "path": "/here"}])) == ["of the host"]
    assert refused(dray, shell("true", mounts=[{"hostPath": "/etc", "path": "/here"}])) == ["steps[0].mounts[0].hostPath"]


def test_a_job_without_a_network(dray: Served, shell: Shell) -> None:
    assert complete(dray, shell("ls /sys/class/net"), network="none") == ["lo"]


def test_a_network_that_is_not_there(dray: Served, shell: Shell) -> None:
    record = failed(dray, shell("true"), network="no-such-network")
    assert record["reason"] == "start_failed"
    assert "no-such-network" in record["message"]


# --- steps that always run


def test_an_always_step_is_told_how_it_went(dray: Served, shell: Shell) -> None:
    told = shell("cat; echo $DRAY_STATUS,$DRAY_REASON,$DRAY_FAILED_STEP,$DRAY_EXIT_CODE", always=True)
    assert complete(dray, shell("echo data"), told) == ["data", "complete,,,"]
    job_id = dray.post({"steps": [shell("true"), shell("exit 3"), shell("echo never"), told]})
    record = dray.wait(job_id)
    assert (record["status"], record["reason"], record["failedStep"]) == ("error", "exit_code", 2)
    assert dray.log(job_id) == ["error,exit_code,2,3"]


# --- cancel


def test_a_cancelled_job_ends_its_step_keeps_its_log_and_runs_what_always_runs(dray: Served, shell: Shell) -> None:
    slow, last = shell("trap 'echo told; exit 0' TERM; echo begun; sleep 60 & wait"), shell("echo $DRAY_REASON", always=True)
    job_id = dray.post({"steps": [slow, shell("echo never"), last]})
    until(lambda: dray.log(job_id) == ["begun"], 30, "the step has begun")
    assert dray.http.post(f"/jobs/{job_id}/cancel").is_success
    record = dray.wait(job_id)
    assert (record["status"], record["reason"]) == ("error", "cancelled")
    assert dray.log(job_id) == ["begun", "told", "cancelled"]


def test_cancelled_just_as_a_step_ends(dray: Served, shell: Shell) -> None:
    for pause in (0.2, 0.3, 0.4, 0.5):
        job_id = dray.post({"steps": [shell("sleep 0.2"), shell("sleep 0.1; echo second")]})
        time.sleep(pause)
        answer = dray.http.post(f"/jobs/{job_id}/cancel")
        record = dray.wait(job_id)
        if answer.is_success:
            assert (record["status"], record["reason"]) in [("error", "cancelled"), ("complete", None)]
        assert (record["status"] == "complete") == (record["stepsCompleted"] == 2)


# --- before, and again


def test_preflight_pins_the_images_and_names_what_is_missing(dray: Served, shell: Shell) -> None:
    until(lambda: "dray_operators_alive 1.0" in dray.http.get("/metrics").text, 30, "the operator is there")
    answer = dray.http.post("/jobs?preflight=true", json={"steps": [shell("echo pinned")]})
    assert answer.status_code == 201, answer.text
    record = dray.wait(answer.json()["id"])
    assert record["status"] == "complete"
    assert "sha256:" in record["steps"][0]["image"]
    missing = {"source": "127.0.0.1:1/no/such/image"}
    unknown = shell("true", environment=[{"variable": "KEY", "secret": "none"}])
    told = refused(dray, shell("true"), missing, unknown, query="?preflight=true")
    assert "steps[1].source" in told
    assert "steps[2].environment[0].secret" in told


def test_a_rerun_goes_on_from_a_step_with_its_recorded_input(dray: Served, shell: Shell) -> None:
    first = dray.post({"steps": [shell("head -c 6 /dev/urandom | base64"), shell("cat")]})
    dray.wait(first)
    answer = dray.http.post(f"/jobs/{first}/rerun?from=2")
    assert answer.status_code == 201, answer.text
    again = str(answer.json()["id"])
    record = dray.wait(again)
    assert record["status"] == "complete", record
    assert dray.output(again) == dray.output(first)
    assert dray.log(again) == dray.log(first)[1:]


# --- images


def test_only_images_that_the_operator_allows(serve: Callable[..., Served], image: Images) -> None:
    allowed = image("echo", "allowed")
    dray = serve(DRAY_IMAGES=f"{allowed}*")
    assert complete(dray, {"source": allowed}) == ["allowed"]
    assert refused(dray, {"source": allowed}, {"source": image("echo", "other")}) == ["steps[1].source"]
