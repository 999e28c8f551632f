"""The client's verbs as a user types them, against a real `dray serve`."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.images import Images
from kit.process import free_port, until
from kit.require import missing
from kit.serving import Served

DRAY = str(Path(sys.executable).parent / "dray")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202eevil"
Done = subprocess.CompletedProcess[bytes]


class Foreign(BaseHTTPRequestHandler):
    """A server of something else."""

    def do_GET(self) -> None:
        content = b'{"hello": "world"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class User:
    """Someone at a shell, with an environment that names the server."""

    def __init__(self, folder: Path, **env: str) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DRAY_", "REDIS_"))}
        self.env = own | {"XDG_CONFIG_HOME": str(folder), "TERM": "xterm-256color", "COLUMNS": "160"} | env

    def types(self, *words: str, stdin: bytes = b"", code: int = 0) -> Done:
        """What came of `dray …`; it must end with this exit code."""
        done = subprocess.run([DRAY, *words], input=stdin, env=self.env, capture_output=True, timeout=100, check=False)
        assert done.returncode == code, f"{words} ended with {done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}"
        assert b"Traceback" not in done.stderr
        return done

    def says(self, *words: str, stdin: bytes = b"") -> str:
        """stdout, of one that does well."""
        return self.types(*words, stdin=stdin).stdout.decode()

    def begins(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([DRAY, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def sees(self, *words: str) -> tuple[int, str]:
        """(exit code, what a terminal is sent), stdout and stderr together."""
        controller, terminal = pty.openpty()
        process = subprocess.Popen([DRAY, *words], env=self.env, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
        os.close(terminal)
        seen = b""
        with suppress(OSError):  # Linux's end of a terminal
            while piece := os.read(controller, 65536):
                seen += piece
        os.close(controller)
        return process.wait(60), seen.decode()


@pytest.fixture
def user(dray: Served, tmp_path: Path) -> User:
    return User(tmp_path, DRAY_SERVER=dray.url)


@pytest.fixture
def begun(user: User) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """User.begins, of what is ended after the test."""
    made: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> subprocess.Popen[bytes]:
        made.append(user.begins(*words))
        return made[-1]

    yield begin
    for process in made:
        process.kill()
        process.communicate()


def the_job(dray: Served) -> str:
    """The id of the only one."""
    until(lambda: len(dray.http.get("/jobs").json()) == 1, 30, "the job is posted")
    return str(dray.http.get("/jobs").json()[0]["id"])


def running(dray: Served, job_id: str) -> None:
    until(lambda: bool(dray.log(job_id)), 30, "its step runs")


# --- run


def test_run_passes_the_last_output_on_and_tells_of_the_rest_on_stderr(user: User, image: Images, tmp_path: Path) -> None:
    job = {"steps": [{"name": "first", "source": image.shell("printf 'a\\0\\377'; echo beside >&2")}, {"source": image("cat")}]}
    (tmp_path / "job.json").write_text(json.dumps(job))
    done = user.types("run", str(tmp_path / "job.json"))
    assert done.stdout == b"a\0\xff"
    told = done.stderr.decode()
    assert re.match(r"job [0-9A-F-]{36}\n", told)
    assert "1 | beside\n" in told
    assert re.search(r"step 1 \(first\): complete, [0-9.]+ s, 3 B\n", told)


def test_run_takes_yaml_from_stdin_and_tells_the_record_if_asked(user: User, image: Images) -> None:
    job = f"name: no\nsteps:\n  - source: {image('echo', 'hi')}\n"
    record = json.loads(user.says("run", "-", "-o", "json", stdin=job.encode()))
    assert (record["name"], record["status"]) == ("no", "complete")


def test_run_ends_as_the_step_that_failed(user: User, image: Images) -> None:
    done = user.types("run", "--step", f"{image('true')} echo hi", "--step", f"{image('true')} sh -c 'cat; exit 37'", code=37)
    assert done.stdout == b""
    assert "exit code 37" in done.stderr.decode()


def test_run_has_codes_for_other_ends(user: User, image: Images, tmp_path: Path) -> None:
    user.types("run", "--step", f"{image('true')} /nosuch", code=126)
    (tmp_path / "slow.yaml").write_text(f"timeout: 1\nsteps: [{{source: '{image('sleep', '60')}'}}]")
    user.types("run", str(tmp_path / "slow.yaml"), code=124)
    assert b"steps[0].source: " in user.types("run", "--step", ":::", code=125).stderr
    assert b"/nowhere" in user.types("run", "/nowhere", code=125).stderr
    user.types("run", "--nosuch", code=2)


def test_ctrl_c_cancels_the_job(dray: Served, image: Images, begun: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = begun("run", "--step", f"{image('true')} sh -c 'echo on; exec sleep 60'")
    job_id = the_job(dray)
    running(dray, job_id)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert dray.record(job_id)["reason"] == "cancelled"
    assert b"Traceback" not in told


def test_ctrl_c_again_stops_steps_that_always_run_and_then_leaves(
    dray: Served, image: Images, tmp_path: Path, begun: Callable[..., subprocess.Popen[bytes]]
) -> None:
    step = {"source": image.shell("trap '' TERM; echo on; sleep 8"), "always": True}
    (tmp_path / "job.json").write_text(json.dumps({"steps": [{"source": image("true")}, step]}))
    process = begun("run", str(tmp_path / "job.json"))
    job_id = the_job(dray)
    running(dray, job_id)
    assert process.stderr is not None
    for said in (b"Ctrl-C again stops", b"Ctrl-C once more leaves"):
        process.send_signal(signal.SIGINT)
        while said not in (line := process.stderr.readline()):
            assert line
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert b"Traceback" not in told
    dray.wait(job_id)


def test_run_goes_on_when_the_server_was_away(dray: Served, image: Images, tmp_path: Path, begun: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = begun("run", "--step", f"{image('true')} sh -c 'for i in 1 2 3 4 5 6; do echo $i; sleep 1; done'")
    running(dray, the_job(dray))
    dray.kill()
    dray.start()
    output, told = process.communicate(timeout=90)
    assert process.returncode == 0, told
    assert output == b"1\n2\n3\n4\n5\n6\n"
    assert re.findall(rb"^1 \| (.)$", told, re.MULTILINE) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert b"trying again" in told


# --- run, as a filter


def test_what_is_piped_in_is_the_input_of_the_first_step(user: User, image: Images, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"name: gefüllt\nsteps: [{{source: '{image('cat')}'}}, {{source: '{image('cat')}'}}]")
    for size in (1, 70_000, 5_000_000):
        content = random.Random(size).randbytes(size)
        done = user.types("run", str(tmp_path / "job.yaml"), stdin=content)
        assert done.stdout == content
        assert re.search(rb"step 2 \(.*\): complete", done.stderr)


def test_a_filter_ends_as_the_step_that_failed(user: User, image: Images) -> None:
    step = f"{image('true')} sh -c 'wc -c >&2; exit 7'"
    for size in (3, 3_000_000):
        done = user.types("run", "--step", step, stdin=b"x" * size, code=7)
        assert f"1 | {size}\n" in done.stderr.decode()
        assert b"exit code 7" in done.stderr


def test_a_filter_that_the_server_refuses_says_why(serve: Callable[..., Served], image: Images, tmp_path: Path) -> None:
    user = User(tmp_path, DRAY_SERVER=serve(DRAY_INPUT_CAP="1000").url)
    for size in (1001, 20_000_000):
        assert b"DRAY_INPUT_CAP" in user.types("run", "--step", image("cat"), stdin=b"x" * size, code=125).stderr
    (tmp_path / "job.json").write_text('{"steps": [{"source": "a"}],}')
    assert b"line 1" in user.types("run", str(tmp_path / "job.json"), stdin=b"some", code=125).stderr


def test_ctrl_c_while_the_input_comes_makes_no_job(dray: Served, user: User, image: Images) -> None:
    process = subprocess.Popen([DRAY, "run", "--step", image("wc")], env=user.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(b"x" * 3_000_000)
    process.stdin.flush()
    until(lambda: any((dray.data_dir / "outputs").rglob("*.partial")), 20, "it is being sent")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdin.close()
    until(lambda: not any((dray.data_dir / "outputs").rglob("*")), 20, "nothing of it is kept")
    assert dray.http.get("/jobs").json() == []


def test_who_pipes_nothing_in_is_told_what_is_waited_for(user: User, image: Images) -> None:
    process = subprocess.Popen([DRAY, "run", "--step", image("cat")], env=user.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert b"</dev/null" in process.stderr.readline()
    assert process.communicate(b"late", timeout=60)[0] == b"late"


# --- run, with no server


@pytest.fixture
def loner(engine: Any, redis: None, tmp_path: Path) -> Iterator[User]:
    """A user whose server does not answer; in the end nothing is left of what they ran."""
    with tempfile.TemporaryDirectory(prefix="loner-") as folder:  # a short path: a Unix socket's is limited
        yield User(tmp_path, DRAY_SERVER="http://127.0.0.1:1", TMPDIR=folder)
        assert list(Path(folder).iterdir()) == []


def nothing_left(engine: Any, told: str) -> None:
    """Of the job whose id was told."""
    job_id = re.findall(r"^job ([0-9A-F-]{36})$", told, re.MULTILINE)[0]
    mine = {"label": f"dray.job={job_id}"}
    assert engine.containers.list(all=True, ignore_removed=True, filters=mine) == []
    assert engine.volumes.list(filters=mine) == []


def test_run_needs_no_server(loner: User, image: Images) -> None:
    for size in (0, 3_000_000):
        done = loner.types("run", "--local", "--step", f"{image('true')} cat", "--step", f"{image('true')} wc -c", stdin=b"x" * size)
        assert done.stdout == b"%d\n" % size
        nothing_left(image.engine, done.stderr.decode())
    done = loner.types("run", "--local", "--step", f"{image('true')} sh -c 'exit 5'", "-o", "json", code=5)
    assert json.loads(done.stdout)["reason"] == "exit_code"
    nothing_left(image.engine, done.stderr.decode())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_ended_by_a_signal_takes_its_server_and_its_job_along(loner: User, image: Images, number: int) -> None:
    process = loner.begins("run", "--local", "--step", f"{image('true')} sh -c 'echo on; exec sleep 60'")
    assert process.stderr is not None
    told = b""
    while b"1 | on" not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    process.send_signal(number)
    told += process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    nothing_left(image.engine, told.decode())


def test_run_without_server_and_engine_says_what_is_missing(loner: User) -> None:
    loner.env["DOCKER_HOST"] = "unix:///no/such.sock"
    assert b"engine" in loner.types("run", "--local", "--step", "a", code=125).stderr


# --- a terminal


def test_on_a_terminal_nothing_of_a_job_is_obeyed(dray: Served, user: User, image: Images) -> None:
    script = "printf '\\033]0;owned\\007\\033[2J\\342\\200\\256evil\\n'"
    job_id = dray.post({"name": HOSTILE, "steps": [{"name": HOSTILE, "source": image.shell(script)}]})
    dray.wait(job_id)
    for words in (("ls",), ("get", job_id), ("get", job_id, "-o", "json"), ("get", job_id, "-o", "yaml"), ("logs", job_id), ("output", job_id)):
        code, seen = user.sees(*words)
        assert code == 0, seen
        assert "evil" in seen
        assert not any(bad in seen for bad in ("\x1b]0", "\x1b[2J", "\x07", "\u202e")), (words, seen)
    assert HOSTILE in user.says("logs", job_id)


def test_an_id_is_shown_whole_on_a_narrow_terminal(dray: Served, user: User, image: Images) -> None:
    job_id = dray.post({"name": "long " * 20, "steps": [{"source": image("true")}]})
    dray.wait(job_id)
    user.env["COLUMNS"] = "60"
    for words in (("ls",), ("get", job_id)):
        assert job_id in user.sees(*words)[1]


def test_run_shows_its_progress_on_a_terminal(user: User, image: Images) -> None:
    code, seen = user.sees("run", "--step", f"{image('true')} sh -c 'printf \"\\033]0;owned\\007[bold]x\\n\"; sleep 1'", "--step", f"{image('true')} false")
    assert code == 1
    assert "\x1b]0" not in seen
    assert "[bold]x" in seen
    assert "step 1 of 2" in seen
    assert "exit code 1" in seen


# --- the others


def test_a_job_is_submitted_shown_listed_and_removed(dray: Served, user: User, image: Images) -> None:
    job = json.dumps({"name": "one", "labels": {"team": "a"}, "steps": [{"source": image("echo", "hi")}]}).encode()
    job_id = user.says("submit", "-", stdin=job).strip()
    other = user.says("submit", "--step", image("true")).strip()
    for each in (job_id, other):
        dray.wait(each)
    assert user.says("ls", "-o", "name").split() == [other, job_id]
    assert user.says("ls", "-o", "name", "--label", "team=a", "--status", "complete", "--name", "one").split() == [job_id]
    assert user.says("ls", "-o", "name", "--status", "error") == ""
    first = user.types("ls", "-o", "name", "--limit", "1")
    assert (first.stdout.decode().split(), b"--limit" in first.stderr) == ([other], True)
    assert [line.split()[0] for line in user.says("ls").splitlines()] == ["ID", other, job_id]
    record = json.loads(user.says("get", job_id, "-o", "json"))
    assert record == yaml.safe_load(user.says("get", job_id, "-o", "yaml")) == dray.record(job_id)
    assert "status: complete" in user.says("get", job_id)
    user.types("rm", job_id, other)
    assert user.says("ls", "-o", "json") == "[]\n"
    assert f"no job {job_id}" in user.types("get", job_id, code=1).stderr.decode()


def test_a_field_that_the_server_does_not_know_is_told(user: User, image: Images) -> None:
    job = json.dumps({"steps": [{"source": image("true"), "retry": 3}]}).encode()
    for verb in ("submit", "run"):
        assert "steps[0].retry: there is no such field" in user.types(verb, "-", stdin=job).stderr.decode()


def test_a_table_has_no_blanks_at_the_end_of_a_line(user: User, image: Images) -> None:
    failed = user.types("run", "--step", f"{image('true')} false", code=1).stderr.decode().split()[1]
    for shown in (user.says("ls"), user.says("get", failed)):
        assert [line for line in shown.splitlines() if line != line.rstrip()] == []
    assert "fault: user" in user.says("get", failed)


def test_logs_are_followed_to_the_end(dray: Served, user: User, image: Images) -> None:
    job_id = dray.post({"steps": [{"source": image.shell("for i in 1 2 3; do echo $i; sleep 0.3; done")}]})
    assert user.says("logs", "-f", job_id) == "1\n2\n3\n"
    assert user.says("logs", job_id) == "1\n2\n3\n"


def test_outputs_are_passed_on_byte_for_byte(dray: Served, user: User, image: Images) -> None:
    job_id = dray.post({"steps": [{"source": image.shell("head -c 3000000 /dev/urandom")}, {"source": image.shell("head -c 100000")}]})
    assert b"still running" in user.types("output", job_id, code=1).stderr
    dray.wait(job_id)
    assert user.types("output", job_id).stdout == dray.output(job_id)
    assert user.types("output", job_id, "--step", "2").stdout == dray.output(job_id)
    assert b"is not kept" in user.types("output", job_id, "--step", "1", code=1).stderr


def by_hand(user: User, folder: Path, *words: str, server: str = "") -> subprocess.CompletedProcess[bytes]:
    """What comes of what `dray reproduce` prints."""
    if shutil.which("docker") is None:
        missing("docker", "the docker command is not installed")
    path = f"{Path(DRAY).parent}:{user.env['PATH']}"
    script = user.types(*([f"--server={server}"] if server else []), "reproduce", *words).stdout
    return subprocess.run(["sh"], input=script, cwd=folder, env=user.env | {"PATH": path}, capture_output=True, timeout=60, check=False)


def test_a_step_is_repeated_by_hand(dray: Served, user: User, image: Images, tmp_path: Path) -> None:
    hostile = 'it\'s "$(touch owned)"; `touch owned`\n* \\ \u00e4'
    script = 'cat; for x in "$@"; do echo "$x"; done; env | grep -v "^HOSTNAME=" | sort; pwd; id -u; exit $CODE'
    steps: list[dict[str, Any]] = [
        {"source": image("cat")},
        {
            "name": hostile,
            "source": image("never", user="user", env={"OF_THE_IMAGE": "1"}),
            "command": ["sh", "-c", script, "name"],
            "args": [hostile, "", "-x"],
            "workdir": "/tmp",
            "environment": [{"variable": "HOSTILE", "value": hostile}, {"variable": "CODE", "value": "7"}, {"variable": "B", "value": "step"}],
            "resources": {"cpu": "500m", "memory": "64Mi", "pids": 50},
            "mounts": [{"volume": "reproduced", "path": "/mnt/a,b", "readOnly": True}],
        },
        {"source": image.shell("env | grep ^DRAY_ | sort"), "always": True},
    ]
    job = {"name": "by hand", "steps": steps, "environment": [{"variable": "A", "value": "job"}, {"variable": "B", "value": "job"}], "network": "none"}
    given = dray.http.post("/filter?wait=false", content=b"given\n" * 20_000, headers={"Dray-Job": json.dumps(job)})
    job_id = given.json()["id"]
    assert dray.wait(job_id)["steps"][1]["exitCode"] == 7
    first = by_hand(user, tmp_path, job_id, "1")
    assert (first.returncode, first.stdout) == (0, b"given\n" * 20_000)
    second = by_hand(user, tmp_path, job_id, "2")
    assert second.returncode != 7, "its input is not kept"
    assert f"dray reproduce {job_id} 1" in user.says("reproduce", job_id, "2")
    (tmp_path / f"{job_id}-2.in").write_bytes(first.stdout)
    second = by_hand(user, tmp_path, job_id, "2")
    assert second.returncode == 7, second.stderr
    told = [line for line in dray.log(job_id) if not line.startswith(("DRAY_", "given"))]
    assert [line for line in second.stdout.decode().splitlines() if not line.startswith(("DRAY_", "given"))] == told
    third = by_hand(user, tmp_path, job_id, "3")
    assert third.stdout.decode().splitlines() == dray.log(job_id)[-third.stdout.count(b"\n") :]
    assert b"DRAY_EXIT_CODE=7" in third.stdout
    assert not list(tmp_path.glob("owned"))
    dray.http.delete(f"/jobs/{job_id}").raise_for_status()
    until(lambda: not dray.containers(job_id), 30, "its containers are gone")
    image.engine.volumes.get("dray-volume-reproduced").remove()


def test_what_is_repeated_by_hand_has_its_kept_input_and_pinned_image_but_no_secret(
    serve: Callable[..., Served], image: Images, registry: Callable[..., Any], tmp_path: Path
) -> None:
    dray = serve(DRAY_SECRET_KEY="hidden")
    user = User(tmp_path, DRAY_SERVER="http://127.0.0.1:1", KEY="by hand")
    step = {"source": registry().push(image.shell("cat; echo $KEY"), "app"), "environment": [{"variable": "KEY", "secret": "key"}], "output": "stdout"}
    job_id = dray.http.post("/jobs?preflight=true", json={"steps": [{"source": image("echo", "hi")}, step]}).json()["id"]
    pinned = dray.wait(job_id)["steps"][1]["image"]
    script = user.says(f"--server={dray.url}", "reproduce", job_id, "2")
    assert pinned in script
    assert "@sha256:" in pinned
    assert "hidden" not in script
    assert by_hand(user, tmp_path, job_id, "2", server=dray.url).stdout == b"hi\nby hand\n"
    assert b"steps 1 to 2" in user.types(f"--server={dray.url}", "reproduce", job_id, "3", code=1).stderr


def test_a_job_is_cancelled_and_run_again(dray: Served, user: User, image: Images) -> None:
    job_id = dray.post({"steps": [{"source": image("echo", "kept")}, {"source": image.shell("echo on; sleep 60")}]})
    running(dray, job_id)
    user.types("cancel", job_id, "--always")
    dray.wait(job_id)
    user.types("cancel", job_id)
    again = user.says("rerun", job_id, "--from", "2").strip()
    assert dray.record(again)["rerunOf"] == job_id
    user.types("cancel", again)
    assert b"from: " in user.types("rerun", job_id, "--from", "9", code=1).stderr


# --- server and token


def test_the_token_comes_from_the_configuration_file(serve: Callable[..., Served], tmp_path: Path) -> None:
    token = "0123456789abcdef"
    dray, user = serve(DRAY_TOKEN=token), User(tmp_path)
    refused = user.types("--server", dray.url, "ls", code=1).stderr.decode()
    assert "DRAY_TOKEN" in refused
    file = tmp_path / "dray" / "config.toml"
    file.parent.mkdir()
    file.write_text(f'server = "{dray.url}"\ntoken = "{token}"\n')
    file.chmod(0o600)
    assert user.says("ls", "-o", "json") == "[]\n"


def test_a_server_that_is_not_there_or_no_server_is_told(tmp_path: Path) -> None:
    user = User(tmp_path, DRAY_SERVER=f"http://127.0.0.1:{free_port()}")
    told = user.types("ls", code=1).stderr
    assert b"does not answer" in told
    assert b"is dray serve running there?" in told
    assert b"does not answer" in user.types("run", "--step", "a", code=125).stderr
    assert b"the server must be" in user.types("--server", "nonsense", "ls", code=2).stderr


def test_what_cannot_be_written_is_told(dray: Served, user: User) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([DRAY, "ls"], env=user.env, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"dray: stdout: No space left on device\n")


def test_an_option_of_a_server_that_is_not_one_is_refused_with_its_usage(tmp_path: Path) -> None:
    told = User(tmp_path).types("serve", "--prot", "3", code=2).stderr.decode()
    assert told.startswith("usage: dray serve ")
    assert told.endswith("dray serve: error: unrecognized arguments: --prot 3\n")


def test_a_server_that_is_no_dray_is_told(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        user = User(tmp_path, DRAY_SERVER=f"http://127.0.0.1:{server.server_port}")
        for words in (("ls",), ("get", "A"), ("logs", "A"), ("rerun", "A"), ("rm", "A")):
            assert b"a Dray" in user.types(*words, code=1).stderr
        server.shutdown()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_the_verbs(tmp_path: Path, shell: str) -> None:
    user = User(
        tmp_path,
        _DRAY_COMPLETE=f"complete_{shell}",
        COMP_WORDS="dray su",
        COMP_CWORD="1",
        _TYPER_COMPLETE_ARGS="dray su",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert "submit" in user.says()


# --- doctor


def test_the_doctor_finds_all_well(user: User) -> None:
    verdicts = [line.split()[:2] for line in user.says("doctor").splitlines()]
    assert verdicts == [["ok", what] for what in ("engine", "images", "runner", "Redis", "permissions", "port", "token")]


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"DOCKER_HOST": "unix:///nowhere.sock"}, r"bad  engine .*/nowhere.sock \(No such file or directory\): .*mend DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:1"}, r"bad  engine .*:1 \(Connection refused\): .*\nbad  images +not looked at: no engine answers"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, r"bad  Redis .*mend REDIS_URL"),
        ({"DRAY_DATA_DIR": "/dev/null/dray"}, r"bad  permissions .*DRAY_DATA_DIR"),
        ({"DRAY_JOBS": "many"}, r"bad  settings .*DRAY_JOBS"),
        ({"DOCKER_CONFIG": "/dev/null"}, r"bad  images .*/dev/null/config.json"),
    ],
)
def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(tmp_path: Path, engine: Any, redis: None, env: dict[str, str], line: str) -> None:
    user = User(tmp_path, **({"DRAY_SERVER": f"http://127.0.0.1:{free_port()}"} | env))
    told: str = user.types("doctor", code=1).stdout.decode()
    assert re.search(line, told), told


# --- one program


def test_each_command_loads_only_what_it_needs(tmp_path: Path) -> None:
    loaded = "import sys; from dray.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\nprint('loaded:', *sys.modules)"
    for words, absent in (
        (("serve", "--help"), ("typer", "rich", "dray.client")),
        (("ls", "--help"), ("fastapi", "docker", "redis", "uvicorn", "dray.settings")),
    ):
        done = subprocess.run([sys.executable, "-c", loaded, *words], env=User(tmp_path).env, capture_output=True, text=True, check=True)
        modules = done.stdout.partition("loaded: ")[2].split()
        assert "dray.cli" in modules
        assert not set(absent) & set(modules)
