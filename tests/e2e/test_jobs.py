"""Jobs of every kind on the real engine, through the real API: what comes out, and that nothing is left."""

from __future__ import annotations

import json
import secrets
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kit.images import Images
from kit.process import until
from kit.registry import PASSWORD, USER, Registry
from kit.serving import Served

FULL = pytest.mark.full


def job(*steps: str | dict[str, Any], **rest: Any) -> dict[str, Any]:
    """A job of these images, or steps."""
    return {"steps": [{"source": step} if isinstance(step, str) else step for step in steps], **rest}


def env(**values: str) -> list[dict[str, str]]:
    return [{"variable": name, "value": value} for name, value in values.items()]


def complete(dray: Served, posted: dict[str, Any], within: float = 60) -> tuple[bytes, list[str]]:
    """Output and log of a job that must end well."""
    job_id = dray.post(posted)
    record = dray.wait(job_id, within)
    assert record["status"] == "complete", record
    assert record["stepsCompleted"] == len(posted["steps"])
    return dray.output(job_id), dray.log(job_id)


# --- the pipe


def test_each_steps_output_is_the_nexts_input(dray: Served, image: Images) -> None:
    output, log = complete(dray, job(image("printf", "b\\na\\nb\\n"), image("sort"), image("uniq"), image("wc", "-l")))
    assert output.strip() == b"2"
    assert log == ["b", "a", "b", "a", "b", "b", "a", "b", "2"]


def test_stderr_is_piped_and_stdout_only_logged(dray: Served, image: Images) -> None:
    posted = job({"source": image.shell("echo out; echo err >&2"), "output": "stderr"}, image("cat"))
    output, log = complete(dray, posted)
    assert output == b"err\n"
    assert sorted(log[:2]) == ["err", "out"]
    assert log[2:] == ["err"]


def test_a_file_is_piped_also_where_the_image_has_one_of_that_name(dray: Served, image: Images) -> None:
    writes = image("sh", "-c", "cat /out/put; printf 'a\\0b' > /out/put; echo done", files={"/out/put": "from the image"})
    output, log = complete(dray, job({"source": writes, "output": "/out/put"}, image("cat")))
    assert output == b"a\0b"
    assert log == ["done", "a\0b"]


def test_a_file_never_written_is_empty(dray: Served, image: Images) -> None:
    output, _ = complete(dray, job({"source": image.shell("true"), "output": "/deep/in/folders"}, image("wc", "-c")))
    assert output.strip() == b"0"


def test_a_user_who_is_not_root_writes_its_file_and_reads_its_input(dray: Served, image: Images) -> None:
    posted = job(
        {"source": image("sh", "-c", "id -u > /out.txt", user="user"), "output": "/out.txt"},
        image("cat", user="nobody"),
        {"source": image("sh", "-c", "cat >&2", user="1234:1234"), "output": "stderr"},
    )
    assert complete(dray, posted)[0] == b"1000\n"


@pytest.mark.parametrize("script", ["rm /o", "rm /o && mkdir /o", "rm /o && ln -s /etc/passwd /o", "rm /o && mkfifo /o"])
def test_an_output_file_removed_or_replaced_is_an_error(dray: Served, image: Images, script: str) -> None:
    record = dray.run(job({"source": image.shell(script), "output": "/o"}, image("cat")))
    assert (record["status"], record["reason"], record["stepsCompleted"]) == ("error", "output_missing", 0)


def test_twenty_jobs_at_once_from_one_image_keep_their_files_apart(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(DRAY_JOBS="20")
    writes = image.shell("sleep 0.2; echo $NUMBER > /out; sleep 0.2")
    jobs = [job({"source": writes, "output": "/out", "environment": env(NUMBER=str(number))}, image("cat")) for number in range(20)]
    with ThreadPoolExecutor(20) as threads:
        ids = list(threads.map(dray.post, jobs))
    for number, job_id in enumerate(ids):
        assert dray.wait(job_id, 120)["status"] == "complete"
        assert dray.output(job_id) == f"{number}\n".encode()


def test_only_what_lies_between_the_delimiters_is_piped(dray: Served, image: Images) -> None:
    script = "echo before; echo BEGIN; echo one; printf 'two\\r\\n'; echo END; echo between; echo BEGIN; echo three; echo END; echo after"
    output, log = complete(dray, job({"source": image.shell(script), "beginDelimiter": "BEGIN", "endDelimiter": "END"}, image("cat")))
    assert output == b"one\ntwo\r\nthree\n"
    assert log[:10] == ["before", "BEGIN", "one", "two", "END", "between", "BEGIN", "three", "END", "after"]


def test_environment_of_job_and_step_the_steps_wins(dray: Served, image: Images) -> None:
    shows = image("sh", "-c", "echo $A $B $C $D", env={"C": "image", "D": "image"})
    posted = job({"source": shows, "environment": env(B="step", C="step")}, environment=env(A="job", B="job"))
    assert complete(dray, posted)[0] == b"job step step image\n"


def test_the_images_own_directory_entrypoint_and_umask_hold(dray: Served, image: Images) -> None:
    made = image("umask", workdir="/work/here", entrypoint=["sh", "-c", "pwd; umask; echo $0"])
    assert complete(dray, job(made))[0] == b"/work/here\n0022\numask\n"


def test_an_image_with_nothing_but_its_program_runs(dray: Served, engine: Any, image: Images) -> None:
    bare = image(entrypoint=["/bin/busybox", "echo", "bare"])
    assert complete(dray, job(bare))[0] == b"bare\n"


def test_steps_share_the_jobs_network(dray: Served, image: Images) -> None:
    shows = image.shell("ip -o link show eth0 | sed 's/.*ether //'; cat")
    first, second = complete(dray, job(shows, shows))[0].splitlines()
    assert first == second


# --- how steps end


def test_a_step_that_fails_ends_the_job_there(dray: Served, image: Images) -> None:
    job_id = dray.post(job(image("true"), image.shell("echo last words >&2; exit 3"), image("true")))
    record = dray.wait(job_id)
    assert (record["status"], record["stepsCompleted"], record["reason"]) == ("error", 1, "exit_code")
    assert [(step["state"], step["exitCode"]) for step in record["steps"]] == [("complete", 0), ("error", 3), ("waiting", None)]
    assert "exit code 3" in record["message"]
    assert dray.log(job_id) == ["last words"]
    assert dray.http.get(f"/jobs/{job_id}/output").status_code == 409


def test_a_step_killed_by_a_signal_says_which(dray: Served, image: Images) -> None:
    record = dray.run(job(image.shell("kill -SEGV $$")))
    assert (record["reason"], record["steps"][0]["exitCode"]) == ("exit_code", 139)
    assert "signal 11" in record["message"]


@pytest.mark.parametrize("source", ["no.such.registry.invalid/x", "127.0.0.1:1/nothing/here"])
def test_an_image_that_cannot_be_pulled_says_so(dray: Served, source: str) -> None:
    record = dray.run(job(source), within=90)
    assert (record["status"], record["reason"]) == ("error", "image_pull_failed")


def test_an_image_that_does_not_exist_says_so_at_its_turn(dray: Served, image: Images, registry: Callable[..., Registry]) -> None:
    job_id = dray.post(job(image("echo", "ran"), f"{registry().address}/no/such"))
    record = dray.wait(job_id)
    assert (record["status"], record["reason"], record["stepsCompleted"]) == ("error", "image_not_found", 1)
    assert dray.log(job_id) == ["ran"]


@pytest.mark.parametrize("source", ["a" * 300, "0" * 64, "a@sha256:" + "0" * 32, "a@no-such:" + "0" * 64])
def test_an_image_whose_name_the_engine_refuses_is_not_found(dray: Served, source: str) -> None:
    record = dray.run(job(source))
    assert (record["status"], record["reason"]) == ("error", "image_not_found")


def test_a_command_that_is_not_there_is_told_apart_from_its_own_127(dray: Served, image: Images) -> None:
    absent = dray.run(job(image("/no/such/program")))
    own = dray.run(job(image.shell("exit 127")))
    assert (absent["reason"], absent["steps"][0]["exitCode"]) == ("start_failed", None)
    assert (own["reason"], own["steps"][0]["exitCode"]) == ("exit_code", 127)


def test_an_image_without_a_command_says_so(dray: Served, image: Images) -> None:
    record = dray.run(job(image()))
    assert record["reason"] == "start_failed"


def test_an_image_whose_user_does_not_exist_says_so(dray: Served, image: Images) -> None:
    record = dray.run(job(image("true", user="no-such-user")))
    assert record["reason"] == "start_failed", record


def test_a_step_that_never_reads_50_mb_of_input_does_not_hang(dray: Served, image: Images) -> None:
    posted = job(image("head", "-c", "50000000", "/dev/zero"), image("echo", "never read it"))
    assert complete(dray, posted)[0] == b"never read it\n"


def test_a_step_that_reads_ten_bytes_of_50_mb_does_not_hang(dray: Served, image: Images) -> None:
    output, _ = complete(dray, job(image("head", "-c", "50000000", "/dev/zero"), image("head", "-c", "10"), image("wc", "-c")))
    assert output.strip() == b"10"


def test_a_step_that_leaves_a_child_holding_its_stdout_ends(dray: Served, image: Images) -> None:
    assert complete(dray, job(image.shell("sleep 600 & echo gone"), image("cat")), within=30)[0] == b"gone\n"


_STATUS_OF_NO_TIME = json.dumps(
    dict.fromkeys(("exit", "code", "signal", "errno"), 0) | dict.fromkeys(("in", "out", "started", "finished"), 2**63) | {"error": "", "sha256": ""}
)


@pytest.mark.parametrize(
    "script",
    [
        "rm -rf /.dray/* /.dray/.[!.]*; sleep 1; echo hi",
        "rm -rf /.dray/*; echo hi",
        "rm /.dray/*.claim; echo hi",
        "chmod 000 /.dray /.dray/*; echo hi",
        "chmod 000 /.dray; exit 3",
        "mkdir /.dray/0.1.status; echo hi",
        "rm -f /.dray/0.1.claim; echo 99999999999999999999 >/.dray/0.1.claim; sleep 1; echo hi",
        "rm /.dray/0.1.out; mkfifo /.dray/0.1.out; echo hi",
        "rm /.dray/0.1.out; ln -s /etc/passwd /.dray/0.1.out; echo hi",
        "mkdir /.dray/0.verdict /.dray/1.1.claim; echo hi",
        "cd /.dray; seq 1 100000 | sed 's/.*/&.1.status/' | xargs touch; echo hi",
        "truncate -s 100G /.dray/0.2.log; truncate -s 100G /.dray/0.1.log; sleep 1; echo hi",
        f"echo 1 >/.dray/1.1.claim; echo '{_STATUS_OF_NO_TIME}' >/.dray/1.1.status; sleep 1; echo hi",
    ],
)
def test_a_step_that_spoils_the_jobs_volume_ends_all_the_same(dray: Served, image: Images, script: str) -> None:
    job_id = dray.post(job(image.shell(f"echo ran >&2; {script}"), image("cat")))
    record = dray.wait(job_id, 30)
    assert record["status"] == "complete" or record["reason"] in ("lost", "exit_code", "status_mismatch", "input_damaged"), record
    assert record["status"] == "error" or dray.output(job_id) == b"hi\n"
    assert dray.run(job(image("echo", "next")))["status"] == "complete"


@pytest.mark.parametrize("become", ["mkfifo", "mkdir", "ln -s /etc/passwd"])
def test_a_last_output_that_is_no_file_any_more_ends_the_job(dray: Served, image: Images, become: str) -> None:
    record = dray.run(job(image.shell(f"rm /.dray/0.1.out; {become} /.dray/0.1.out; echo hi")), within=30)
    assert record["reason"] == "output_missing", record


def test_an_output_that_is_a_folder_of_the_image_is_an_error(dray: Served, image: Images) -> None:
    record = dray.run(job({"source": image("echo", "x"), "output": "/tmp"}))
    assert (record["reason"], record["message"].endswith("output /tmp is a folder in the image")) == ("start_failed", True)


# --- caps


def test_a_log_over_its_cap_keeps_first_and_last_lines_and_the_pipe_everything(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(DRAY_LOG_CAP="256KiB")
    output, log = complete(dray, job(image("seq", "1000000"), image("wc", "-l")))
    assert output.strip() == b"1000000"
    marker = next(number for number, line in enumerate(log) if line.startswith("dray: "))
    first, last = log[:marker], log[marker + 1 :]
    assert first == [str(number) for number in range(1, len(first) + 1)]
    assert last[-1] == "1000000"
    kept = log[marker + 1 : log.index("1000000") + 1]
    assert kept == [str(number) for number in range(1000000 - len(kept) + 1, 1000001)]
    assert f"dray: {1000000 - len(first) - len(kept)} lines" in log[marker]


def test_a_job_over_the_cap_on_its_data_fails_and_others_go_on(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(DRAY_DATA_CAP="10MiB")
    too_much, other = dray.post(job(image("cat", "/dev/zero"))), dray.post(job(image("echo", "fine")))
    assert dray.wait(too_much)["reason"] == "data_limit"
    assert dray.wait(other)["status"] == "complete"


def test_a_job_fails_when_the_disk_is_below_its_floor(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(DRAY_DISK_FLOOR="500TiB")
    assert dray.run(job(image("echo", "x")))["reason"] == "disk_full"


# --- images


def test_refresh_runs_the_tags_newest_image_and_removes_the_old(dray: Served, image: Images, registry: Callable[..., Registry], engine: Any) -> None:
    mine, run = registry(), secrets.token_hex(4)  # images of this run alone: what another one left holds none of them
    older, newer = image.shell(f"echo first # {run}"), image.shell(f"echo second # {run}")
    source = mine.push(older, "moving")
    refreshed = {"source": source, "refresh": True}
    assert complete(dray, job(refreshed))[0] == b"first\n"
    old = engine.images.get(source)
    engine.images.remove(older)  # so that the tag alone holds it
    digest = engine.images.get(newer).id
    mine.push(newer, "moving")
    engine.images.get(old.id).tag(source.rsplit(":", 1)[0], "latest")
    assert complete(dray, job(source))[0] == b"first\n"  # without refresh: what the engine has
    assert complete(dray, job(refreshed))[0] == b"second\n"
    assert engine.images.get(source).id == digest
    assert old.id not in {found.id for found in engine.images.list(all=True)}
    engine.images.remove(newer)


def test_a_registry_that_needs_a_login_gets_the_one_in_config_json(
    serve: Callable[..., Served], image: Images, registry: Callable[..., Registry], tmp_path: Path
) -> None:
    private = registry(login=True)
    source = private.push(image("echo", "secret image"), "private")
    dray = serve(DOCKER_CONFIG=str(tmp_path))
    assert dray.run(job(source))["status"] == "error"
    auth = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {private.address: {"auth": auth}}}))
    assert complete(dray, job(source))[0] == b"secret image\n"


# --- many, long and gone


@pytest.mark.timeout(900)
@pytest.mark.parametrize("jobs", [50, pytest.param(500, marks=FULL)])
def test_no_byte_of_a_quick_steps_output_is_missing(serve: Callable[..., Served], image: Images, jobs: int) -> None:
    dray = serve()
    quick = image("printf", "all of it\\n%s\\n", "end")
    ids = [dray.post(job(quick)) for _ in range(jobs)]
    for job_id in ids:
        assert dray.wait(job_id, 600)["status"] == "complete"
        assert dray.output(job_id) == b"all of it\nend\n"
        assert dray.log(job_id) == ["all of it", "end"]


def test_jobs_begin_in_order_of_arrival_and_the_rest_wait(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(DRAY_JOBS="1")
    sleeps = image("sleep", "0.2")
    ids = [dray.post(job(sleeps)) for _ in range(4)]
    assert dray.record(ids[-1])["status"] == "running"
    assert dray.record(ids[-1])["startedAt"] is None
    records = [dray.wait(job_id) for job_id in ids]
    started = [record["startedAt"] for record in records]
    assert started == sorted(started)
    assert all(before["finishedAt"] <= after["startedAt"] for before, after in pairwise(records))


def test_a_deleted_job_runs_on_unrecorded_and_leaves_nothing(dray: Served, image: Images) -> None:
    slow, began = image.shell("echo begun; sleep 2; echo ended"), int(time.time())
    job_id = dray.post(job(slow, slow))
    while dray.record(job_id)["steps"][0]["state"] != "running":
        pass
    assert dray.containers(job_id)
    assert dray.http.delete(f"/jobs/{job_id}").status_code == 204
    assert dray.http.get(f"/jobs/{job_id}").status_code == 404
    assert dray.http.get("/jobs").json() == []
    until(lambda: not dray.containers(job_id) and not dray.volumes(job_id), 30, "all of the job is gone")
    told = dray.engine.events(since=began, until=int(time.time()) + 1, decode=True, filters={"label": f"dray.job={job_id}", "event": "die"})
    ended = {event["Actor"]["Attributes"].get("dray.step"): event["timeNano"] for event in told}
    assert ended["1"] - ended["0"] > 1.5e9, "the second step was not run to its end"


def test_a_deleted_job_that_ended_takes_its_output_along(dray: Served, image: Images) -> None:
    job_id = dray.post(job(image("head", "-c", "1000000", "/dev/zero")))
    assert dray.wait(job_id)["status"] == "complete"
    kept = dray.data_dir / "outputs" / job_id / "0"
    assert kept.stat().st_size == 1000000
    assert dray.http.delete(f"/jobs/{job_id}").status_code == 204
    while kept.exists():
        pass


# --- bytes


def sha256(size: str) -> str:
    return f"head -c {size} /dev/urandom | tee /out | sha256sum >&2"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", ["32m", pytest.param("256m", marks=FULL)])
def test_random_bytes_arrive_unaltered_through_three_steps(dray: Served, image: Images, size: str) -> None:
    source = {"source": image.shell(sha256(size)), "output": "/out"}
    job_id = dray.post(job(source, image("cat"), image("cat"), image("cat"), image("sha256sum")))
    assert dray.wait(job_id, 300)["status"] == "complete"
    log = dray.log(job_id, -1) + dray.log(job_id, 0)[:1]
    assert log[0] == log[1]


def test_a_10_mib_line_without_its_newline_arrives_whole(serve: Callable[..., Served], image: Images) -> None:
    dray = serve(DRAY_LOG_CAP="64MiB")
    output, log = complete(dray, job(image.shell("head -c 10485760 /dev/zero | tr '\\0' x; printf '\\nlast'"), image("cat")))
    assert output == b"x" * 10485760 + b"\nlast"
    assert [len(line) for line in log] == [10485760, 4, 10485760, 4]


def test_all_byte_values_arrive_and_the_log_stays_readable(dray: Served, image: Images) -> None:
    every = bytes(range(256)) * 3
    output, log = complete(dray, job(image("cat", "/bytes", files={"/bytes": every}), image("cat")))
    assert output == every
    assert len(log) == 8


def test_line_ends_are_kept_in_the_pipe_and_cut_from_the_log(dray: Served, image: Images) -> None:
    output, log = complete(dray, job(image("printf", "a\\r\\n\\n\\rb\\nno end")))
    assert output == b"a\r\n\n\rb\nno end"
    assert log == ["a", "", "\rb", "no end"]
