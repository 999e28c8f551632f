"""The native runner's steps: run for real, as on an engine but without one, and plain and sanitized."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runner_kit import KIB, MIB, PYTHON, Runner, as_first, each_build, held_up, processes, said_of, text, wait_for_out

from kit.process import until

runner = each_build
first = as_first


@pytest.fixture
def strays() -> Iterator[Callable[[int], None]]:
    """strays(pid): a process that a step leaves behind, ended with the test."""
    left: list[int] = []
    yield left.append
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


# --- how it ends


@pytest.mark.parametrize("code", [0, 1, 2, 125, 126, 127, 128, 137, 255])
def test_the_commands_exit_code_is_the_runners(runner: Runner, code: int) -> None:
    attempt = runner.shell(f"exit {code}")
    status = attempt.status
    assert [status[key] for key in ("exit", "code", "signal", "error", "errno")] == [code, code, 0, "", 0]


def test_the_status_has_exactly_its_keys_and_the_times_of_the_run(runner: Runner) -> None:
    before = time.time_ns() // 1000
    status = runner.shell("sleep 0.2").status
    after = time.time_ns() // 1000
    keys = "exit code signal error errno in out log lines left_out_lines left_out_bytes started finished sha256 boot"
    assert list(status) == keys.split()
    assert status["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert before <= status["started"] <= status["finished"] - 200_000 <= after - 200_000


# Python's list leaves out 32 and 33, which are libc's own: whether they kill is as the tests' parent left them.
KILLING = sorted(signal.valid_signals() - {getattr(signal, f"SIG{name}") for name in ["CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "WINCH"]})


def test_every_signal_that_kills_the_command_is_told(runner: Runner) -> None:
    """As a process that kills itself; the runner's exit code is a shell's for that signal."""
    script = """
import os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_DFL)
os.kill(os.getpid(), int(sys.argv[1]))
"""
    attempts = [runner.start(*PYTHON, script, str(number), step=0, attempt=number) for number in KILLING]
    ended = {}
    for attempt in attempts:
        attempt.wait()
        status = attempt.status
        ended[attempt.number] = [status[key] for key in ("exit", "code", "signal", "error")]
    assert ended == {number: [128 + number, -1, number, ""] for number in KILLING}


@pytest.mark.parametrize(("prepare", "code", "error"), [("true", 127, 2), ("touch program", 126, 13), ("mkdir program", 126, 13)])
def test_a_command_that_cannot_be_executed_is_told_from_its_exit_codes(runner: Runner, tmp_path: Path, prepare: str, code: int, error: int) -> None:
    subprocess.run(["sh", "-c", prepare], cwd=tmp_path, check=True)
    status = runner.run(str(tmp_path / "program")).status
    assert [status[key] for key in ("exit", "code", "signal", "error", "errno")] == [code, -1, 0, "exec", error]


def test_a_command_that_is_not_on_the_path_is_told(runner: Runner) -> None:
    status = runner.run("no-such-command-anywhere").status
    assert [status[key] for key in ("exit", "code", "error", "errno")] == [127, -1, "exec", 2]


def test_the_command_is_looked_for_on_the_environments_path(runner: Runner, tmp_path: Path) -> None:
    program = tmp_path / "greet"
    program.write_text("#!/bin/sh\necho hello $1\n")
    program.chmod(0o755)
    assert runner.run("greet", "you", popen={"env": {"PATH": str(tmp_path)}}).out == b"hello you\n"


@pytest.mark.parametrize("words", [[], ["step"], ["dance"], ["sandbox", "now"], ["agent", "--dir"]])
def test_a_wrong_command_line_does_nothing(runner: Runner, words: list[str]) -> None:
    done = subprocess.run([str(runner.binary), *words], capture_output=True, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith(b"usage: ")


@pytest.mark.parametrize("wrong", [{"output": "stdin"}, {"log_cap": "1k"}, {"floor": "-1"}, {"data_cap": ""}, {"colour": "red"}])
def test_a_wrong_option_runs_nothing(runner: Runner, tmp_path: Path, wrong: dict[str, Any]) -> None:
    attempt = runner.start("touch", str(tmp_path / "ran"), popen={"stderr": subprocess.DEVNULL}, **wrong)
    assert attempt.wait() == 125
    assert runner.files == set()
    assert not (tmp_path / "ran").exists()


# --- what the command finds


def test_environment_and_directory_are_the_containers(runner: Runner, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "EMPTY": "", "WORDS": "two words\nand a line", "BYTES": os.fsdecode(b"\xff\xfe")}
    attempt = runner.run("sh", "-c", "pwd; cat /proc/$$/environ", popen={"env": env, "cwd": tmp_path})
    assert attempt.out == os.fsencode(f"{tmp_path}\n" + "".join(f"{name}={value}\0" for name, value in env.items()))


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o777, 0])
def test_the_umask_is_the_commands_and_not_the_files(runner: Runner, mask: int) -> None:
    attempt = runner.shell("umask", popen={"umask": mask})
    assert int(attempt.out, 8) == mask
    assert {path.name: path.stat().st_mode & 0o7777 for path in runner.dir.iterdir()} == dict.fromkeys(runner.files, 0o644)
    assert runner.files == {"0.1.claim", "0.1.out", "0.1.log", "0.1.status", "0.verdict"}


def test_the_command_has_its_three_streams_and_no_other_file(runner: Runner) -> None:
    runner.before(b"input")
    attempt = runner.python("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))), os.readlink('/proc/self/fd/0'))", step=1)
    assert attempt.out.decode() == f"[0, 1, 2, 3] {runner.dir}/0.1.out\n"  # 3: the listing itself


def test_the_commands_streams_block(runner: Runner) -> None:
    runner.before(b"input")
    attempt = runner.python("import fcntl, os; print([fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK for fd in (0, 1, 2)])", step=1)
    assert attempt.out == b"[0, 0, 0]\n"


def test_the_first_step_reads_nothing(runner: Runner) -> None:
    attempt = runner.shell("cat; readlink /proc/self/fd/0")
    assert attempt.out == b"/dev/null\n"
    assert attempt.status["in"] == 0


def test_closed_streams_of_the_runner_do_not_get_in_the_way(runner: Runner) -> None:
    attempt = runner.shell("cat; echo out; echo err >&2", through=["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-'])
    assert attempt.out == b"out\n"
    assert text(attempt.log, 2) == b"err\n"


def test_signal_masks_and_dispositions_are_as_they_were(runner: Runner) -> None:
    def odd() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGHUP, signal.SIGUSR2})

    ask = ["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"]
    plain = subprocess.run(ask, capture_output=True, check=True, preexec_fn=odd, restore_signals=False)
    attempt = runner.run(*ask, popen={"preexec_fn": odd, "restore_signals": False})
    assert attempt.out == plain.stdout


def test_the_command_has_a_session_of_its_own(runner: Runner) -> None:
    """As the first process of a container has: `kill 0` in a script does not reach the runner."""
    attempt = runner.python("import os; print(os.getsid(0) == os.getpid(), flush=True); os.killpg(0, 9)", popen={"start_new_session": True})
    assert attempt.out == b"True\n"
    assert attempt.status["signal"] == 9


# --- signals and processes

LISTEN = """
import signal
signals = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
signal.pthread_sigmask(signal.SIG_SETMASK, signals)
print("ready", flush=True)
while True:
    number = int(signal.sigwaitinfo(signals).si_signo)
    print(number, flush=True)
    if number == signal.SIGTERM:
        break
"""


def test_every_signal_that_can_be_is_passed_on(runner: Runner) -> None:
    passed = [*sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTERM}), signal.SIGTERM]
    attempt = runner.start(*PYTHON, LISTEN)
    wait_for_out(attempt, lambda out: out == b"ready\n")
    attempt.process.send_signal(signal.SIGCHLD)  # the runner's own affair
    for number in passed:
        attempt.process.send_signal(number)
        wait_for_out(attempt, lambda out, number=number: out.endswith(f"\n{int(number)}\n".encode()))  # type: ignore[misc]
    assert attempt.ended().out.split() == [b"ready", *(str(int(number)).encode() for number in passed)]


def test_a_step_told_to_end_is_killed_by_that(runner: Runner) -> None:
    attempt = runner.start("sh", "-c", "echo here; exec sleep 60")
    wait_for_out(attempt, lambda out: out == b"here\n")
    attempt.process.terminate()
    status = attempt.ended().status
    assert [status[key] for key in ("exit", "code", "signal", "error")] == [143, -1, 15, ""]


def test_a_step_may_take_its_time_to_end(runner: Runner) -> None:
    attempt = runner.start("sh", "-c", "trap 'sleep 0.3; echo tidied; exit 7' TERM; echo here; while :; do sleep 0.05; done")
    wait_for_out(attempt, lambda out: out == b"here\n")
    attempt.process.terminate()
    attempt.ended()
    assert (attempt.out, attempt.status["code"]) == (b"here\ntidied\n", 7)


def test_a_runner_that_is_killed_leaves_a_claim_and_no_status(runner: Runner, strays: Callable[[int], None]) -> None:
    attempt = runner.start("sh", "-c", "echo $$; exec sleep 60")
    wait_for_out(attempt, lambda out: out.endswith(b"\n"))
    strays(int(attempt.out))
    attempt.process.kill()
    assert attempt.wait() == -9
    assert {name for name in runner.files if not name.startswith(".")} == {"0.1.claim", "0.1.out", "0.1.log"}


@pytest.mark.parametrize("background", ["exec sleep 60", "yes", "yes >&2", "while :; do echo x; sleep 0.01; done", "trap '' TERM HUP; cat /dev/zero"])
def test_a_background_child_does_not_keep_the_step(runner: Runner, strays: Callable[[int], None], background: str) -> None:
    started = time.monotonic()
    attempt = runner.start("sh", "-c", f"echo first; ({background}) & echo $! > {runner.dir}/stray; sleep 0.3; echo last >&2; exit 3", log_cap=200 * KIB)
    attempt.wait(10)
    strays(int((runner.dir / "stray").read_text()))
    assert time.monotonic() - started < 5
    attempt.ended()
    assert attempt.status["code"] == 3
    assert attempt.out.startswith(b"first\n")
    assert b"last\n" in text(attempt.log, 2) or "yes" in background or "zero" in background  # they drown it


def test_all_that_the_command_wrote_is_taken_before_the_end(runner: Runner, strays: Callable[[int], None]) -> None:
    """It ends with full pipes, and with somebody holding them open."""
    size = 900 * KIB
    script = f"""
import os, subprocess, time
print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
os.write(1, b"x" * {size}), os.write(2, b"y" * {size})
"""
    attempt = runner.start(*PYTHON, script, popen={"cwd": runner.dir})
    wait_for_out(attempt, lambda out: out.endswith(b"\n"))
    strays(int(attempt.out))
    command = next(pid for pid, (parent, _) in processes().items() if parent == attempt.process.pid)
    with held_up(attempt):
        (runner.dir / "go").touch()
        until(lambda: processes()[command][1] == "Z", 10, "the command's end")
    attempt.ended()
    assert attempt.out.partition(b"\n")[2] == b"x" * size
    assert text(attempt.log, 2) == b"y" * size


def test_closed_streams_are_fine_and_cost_nothing(runner: Runner) -> None:
    attempt = runner.start("sh", "-c", "echo one; exec >&-; echo two >&2; exec 2>&-; sleep 1; exit 3")
    _, wait_status, usage = os.wait4(attempt.process.pid, 0)
    attempt.process.returncode = os.waitstatus_to_exitcode(wait_status)
    attempt.ended()
    assert attempt.status["code"] == 3
    assert [(block.stream, block.payload) for block in attempt.log] == [(1, b"one\n"), (2, b"two\n")]
    assert usage.ru_utime + usage.ru_stime < 0.5  # it sleeps; it does not turn


@pytest.mark.parametrize("command", ["true", "head -c 10 >/dev/null", "exec <&-"])
def test_a_step_need_not_read_its_input(runner: Runner, command: str) -> None:
    runner.before(b"x" * 4 * MIB)
    assert runner.shell(command, step=1).status["in"] == 4 * MIB


def test_orphans_are_reaped(runner: Runner) -> None:
    attempt = runner.start(
        "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.2 &) ; done; echo ready; while ! [ -e go ]; do sleep 0.05; done", popen={"cwd": runner.dir}
    )
    wait_for_out(attempt, lambda out: out == b"ready\n")
    pid = attempt.process.pid
    children = [child for child, (parent, _) in processes().items() if parent == pid]
    assert len(children) == 10  # the command, and what it orphaned
    until(lambda: [child for child, (parent, _) in processes().items() if parent == pid] == children[:1], 10, "orphans gone")
    (runner.dir / "go").touch()
    attempt.ended()


def can_unshare(*namespaces: str) -> bool:
    return subprocess.run(["unshare", *namespaces, "true"], capture_output=True, check=False).returncode == 0 if shutil.which("unshare") else False


def test_as_the_first_process_it_ends_with_the_command_and_takes_all_with_it(runner: Runner, first: tuple[str, ...]) -> None:
    attempt = runner.shell(f"echo $PPID; sleep 61.{runner.sanitized:d} & exit 9", through=first)
    assert (attempt.out, attempt.status["code"]) == (b"1\n", 9)
    assert subprocess.run(["pgrep", "-f", f"^sleep 61[.]{runner.sanitized:d}$"], check=False, capture_output=True).returncode == 1


@pytest.mark.parametrize("gate", ["shut", "open"])
def test_as_the_first_process_it_hears_signals(runner: Runner, first: tuple[str, ...], gate: str) -> None:
    if gate == "open":
        runner.before(b"")
    attempt = runner.start("sh", "-c", "trap 'exit 5' TERM; echo here; while :; do sleep 0.05; done", step=1, through=first)
    if gate == "open":
        wait_for_out(attempt, lambda out: out == b"here\n")
    inner = Path(f"/proc/{attempt.process.pid}/task/{attempt.process.pid}/children")
    until(lambda: bool(inner.read_text()) and "dray-runner" in Path(f"/proc/{int(inner.read_text())}/comm").read_text(), 10, "the runner")
    time.sleep(0.1)
    os.kill(int(inner.read_text()), signal.SIGTERM)
    assert attempt.wait(10) == (5 if gate == "open" else 143)


# --- the gate and the claim


def test_the_output_of_the_step_before_is_the_input(runner: Runner) -> None:
    first = runner.shell("printf 'a\\0b\\r\\n\\377'")
    second = runner.run("cat", step=1)
    assert second.out == first.out == b"a\0b\r\n\xff"
    assert second.status["in"] == 6


def test_the_attempt_that_the_verdict_names_is_the_input(runner: Runner) -> None:
    runner.shell("echo wrong; exit 1")
    (runner.dir / "0.verdict").unlink()
    runner.shell("echo right", attempt=2)
    assert runner.run("cat", step=1, attempt=3).out == b"right\n"


def test_a_gate_opens_when_the_verdict_falls(runner: Runner) -> None:
    runner.before(b"late", verdict=None)
    attempt = runner.start("cat", step=1)
    time.sleep(0.4)
    assert attempt.process.poll() is None
    assert not attempt.path("claim").exists()
    runner.judge("ok 1\n")
    assert attempt.ended(5).out == b"late"


def test_a_gate_opens_at_once(runner: Runner) -> None:
    """Not at the look that comes each 250 ms: the verdict falls well before one."""
    took = []
    for attempt in range(1, 6):
        started = runner.start("true", step=attempt)
        time.sleep(0.1)
        fell = time.time()
        (runner.dir / f".{attempt - 1}").write_text("ok 1\n")
        (runner.dir / f"{attempt - 1}.1.out").write_bytes(b"")
        (runner.dir / f"{attempt - 1}.1.status").write_text(said_of(b""))
        (runner.dir / f".{attempt - 1}").rename(runner.dir / f"{attempt - 1}.verdict")
        assert started.wait() == 0
        took.append(int(started.path("claim").read_text()) / 1e6 - fell)
        for file in runner.dir.iterdir():
            file.unlink()
    assert min(took) < 0.1


def test_a_gate_opens_without_inotify_too(runner: Runner) -> None:
    limit = "/proc/sys/user/max_inotify_instances"
    through = ["unshare", "--user", "--map-root-user", "sh", "-c", f'echo 0 > {limit} && exec "$0" "$@"']
    if not can_unshare("--user", "--map-root-user", "sh", "-c", f"echo 0 > {limit}"):
        pytest.skip("no namespaces for this user")
    runner.before(b"late", verdict=None)
    attempt = runner.start("cat", step=1, through=through)
    time.sleep(0.3)
    assert attempt.process.poll() is None
    runner.judge("ok 1\n")
    assert attempt.ended(5).out == b"late"


@pytest.mark.parametrize("verdict", ["failed\n", "cancelled\n", "", "ok", "ok \n", "ok 1", "ok 1\nok 2\n", "ok -1\n", "OK 1\n", "ok 1 \n", "ok 1" * 100])
def test_any_other_verdict_ends_the_step_unclaimed(runner: Runner, tmp_path: Path, verdict: str) -> None:
    runner.before(b"", verdict)
    before = runner.files
    assert runner.start("touch", str(tmp_path / "ran"), step=1).wait() == 0
    assert runner.files == before
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_at_the_gate_ends_the_step_unclaimed(runner: Runner, number: int) -> None:
    attempt = runner.start("true", step=1)
    time.sleep(0.2)
    attempt.process.send_signal(signal.SIGUSR1)
    time.sleep(0.1)
    assert attempt.process.poll() is None
    attempt.process.send_signal(number)
    assert attempt.wait(5) == 128 + number
    assert runner.files == set()


def shorten(runner: Runner) -> None:
    (runner.dir / "0.1.out").write_bytes(b"whol")


def lengthen(runner: Runner) -> None:
    (runner.dir / "0.1.out").write_bytes(b"whole and more")


def lose(runner: Runner) -> None:
    (runner.dir / "0.1.out").unlink()


def link(runner: Runner) -> None:
    (runner.dir / "0.1.out").rename(runner.dir / "elsewhere")
    (runner.dir / "0.1.out").symlink_to("elsewhere")


def lose_status(runner: Runner) -> None:
    (runner.dir / "0.1.status").unlink()


def plug(runner: Runner) -> None:
    lose(runner)
    os.mkfifo(runner.dir / "0.1.out")


@pytest.mark.parametrize("spoil", [shorten, lengthen, lose, link, lose_status, plug])
def test_an_input_that_is_not_whole_is_not_run_on(runner: Runner, tmp_path: Path, spoil: Callable[[Runner], None]) -> None:
    runner.before(b"whole")
    spoil(runner)
    attempt = runner.run("touch", str(tmp_path / "ran"), step=1)
    assert [attempt.status[key] for key in ("exit", "code", "signal", "error")] == [125, -1, 0, "input"]
    assert not (tmp_path / "ran").exists()


def test_an_attempt_is_claimed_once(runner: Runner) -> None:
    runner.shell("echo first")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in runner.dir.iterdir()}
    assert runner.start("sh", "-c", "echo second", popen={"stderr": subprocess.DEVNULL}).wait() == 125
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in runner.dir.iterdir()} == before


def test_of_many_at_once_one_runs(runner: Runner, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/ran; sleep 0.2"
    attempts = [runner.start("sh", "-c", script, popen={"stderr": subprocess.DEVNULL}) for _ in range(12)]
    assert sorted(attempt.wait() for attempt in attempts) == [0] + [125] * 11
    assert (tmp_path / "ran").read_text() == "x\n"


@pytest.mark.parametrize("kind", ["out", "log"])
def test_nothing_is_written_over_a_file_that_is_there(runner: Runner, tmp_path: Path, kind: str) -> None:
    (runner.dir / f"0.1.{kind}").write_bytes(b"somebody's")
    attempt = runner.start("touch", str(tmp_path / "ran"))
    assert attempt.wait() == 125
    assert [attempt.status[key] for key in ("code", "error", "errno")] == [-1, "write", 17]
    assert (runner.dir / f"0.1.{kind}").read_bytes() == b"somebody's"
    assert attempt.verdict == "failed\n"
    assert not (tmp_path / "ran").exists()


def test_a_verdict_that_stands_stays(runner: Runner) -> None:
    (runner.dir / "0.verdict").write_text("cancelled\n")
    attempt = runner.start("true")
    assert attempt.wait() == 0
    assert (attempt.status["exit"], attempt.verdict) == (0, "cancelled\n")


def test_a_directory_that_is_not_there_runs_nothing(runner: Runner, tmp_path: Path) -> None:
    runner.dir.rmdir()
    assert runner.start("touch", str(tmp_path / "ran"), popen={"stderr": subprocess.DEVNULL}).wait() == 125
    assert not (tmp_path / "ran").exists()
