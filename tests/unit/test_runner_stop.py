"""The native runner told to stop, to wait, or out of time: `stop`, `hold`, --timeout, --retries, --input, --output none. Plain and sanitized."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from runner_kit import Attempt, Runner, as_first, each_build, held_up, processes, text, wait_for_out

from kit.process import until

runner = each_build
first = as_first

KEYS = ("exit", "code", "signal", "error", "errno")
DEAF = "trap '' TERM; echo here; while :; do sleep 0.02; done"
POLITE = "trap 'echo tidied; exit 0' TERM; echo here; while :; do sleep 0.02; done"


def told(attempt: Attempt) -> list[object]:
    status = attempt.status
    return [status[key] for key in KEYS]


def put(runner: Runner, name: str, word: str = "cancelled") -> None:
    """As the operator does: the file is there, complete."""
    (runner.dir / f".{name}").write_text(f"{word}\n")
    (runner.dir / f".{name}").rename(runner.dir / name)


def here(attempt: Attempt) -> Attempt:
    """When its command has begun."""
    wait_for_out(attempt, lambda out: out.startswith(b"here\n"))
    return attempt


def at_the_gate(attempt: Attempt) -> None:
    until(lambda: processes().get(attempt.process.pid, (0, ""))[1] == "S", 10, "the runner waits")
    time.sleep(0.1)
    assert attempt.process.poll() is None


# --- stop, before the claim


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_stop_ends_the_wait_at_the_gate_without_a_claim(runner: Runner, moment: str) -> None:
    if moment == "before":
        put(runner, "stop")
    attempt = runner.start("true", step=1)
    if moment == "meanwhile":
        at_the_gate(attempt)
        put(runner, "stop")
    assert attempt.wait(5) == 0
    assert runner.files == {"stop"}


def test_a_stop_counts_when_the_gate_opens_at_the_same_time(runner: Runner) -> None:
    runner.before(b"input", verdict=None)
    attempt = runner.start("true", step=1)
    at_the_gate(attempt)
    with held_up(attempt):
        runner.judge("ok 1\n")
        put(runner, "stop")
    assert attempt.wait(5) == 0
    assert not attempt.path("claim").exists()


@pytest.mark.parametrize("options", [{}, {"step": 1, "input": "none"}])
def test_a_stop_counts_for_a_step_without_a_gate(runner: Runner, options: dict[str, str | int]) -> None:
    put(runner, "stop")
    assert runner.start("true", **options).wait(5) == 0  # type: ignore[arg-type]
    assert runner.files == {"stop"}


def test_a_stop_of_any_kind_of_file_counts(runner: Runner) -> None:
    (runner.dir / "stop").mkdir()
    assert runner.start("true").wait(5) == 0
    assert runner.files == {"stop"}


def without_inotify() -> list[str]:
    limit = "/proc/sys/user/max_inotify_instances"
    unshare = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, f"echo 0 > {limit}"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces for this user")
    return [*unshare, f'echo 0 > {limit} && exec "$0" "$@"']


def test_a_stop_is_seen_without_inotify_too(runner: Runner) -> None:
    through = without_inotify()
    waits = runner.start("true", step=1, through=through)
    runs = here(runner.start("sh", "-c", POLITE, through=through))
    put(runner, "stop")
    assert waits.wait(5) == 0
    assert told(runs.ended(5)) == [125, 0, 0, "cancelled", 0]


# --- stop, while the command runs


@pytest.mark.parametrize(("word", "error"), [("cancelled", "cancelled"), ("timed_out", "timed_out"), ("", "cancelled"), ("enough", "cancelled")])
def test_a_stop_ends_the_command_with_the_files_word(runner: Runner, word: str, error: str) -> None:
    attempt = here(runner.start("sh", "-c", "echo here; exec sleep 60"))
    put(runner, "stop", word)
    assert told(attempt.ended(5)) == [125, -1, 15, error, 0]


def test_a_command_that_ends_well_when_told_to_stop_is_stopped_all_the_same(runner: Runner) -> None:
    attempt = here(runner.start("sh", "-c", POLITE))
    put(runner, "stop")
    assert told(attempt.ended(5)) == [125, 0, 0, "cancelled", 0]
    assert text(attempt.log, 1) == b"here\ntidied\n"


def test_a_command_that_does_not_heed_the_stop_is_killed_after_the_grace(runner: Runner) -> None:
    attempt = here(runner.start("sh", "-c", DEAF, grace=500))
    stopped = time.monotonic()
    put(runner, "stop")
    assert told(attempt.ended(20)) == [125, -1, 9, "cancelled", 0]
    assert time.monotonic() - stopped >= 0.5


def test_without_grace_a_command_is_killed_at_once(runner: Runner) -> None:
    attempt = here(runner.start("sh", "-c", DEAF, grace=0))
    put(runner, "stop")
    assert told(attempt.ended(5)) == [125, -1, 9, "cancelled", 0]


def test_a_stop_reaches_the_children_of_a_shell(runner: Runner) -> None:
    """The shell's trap runs when its child has ended: had only the shell been told, that would be a minute later."""
    attempt = here(runner.start("sh", "-c", "trap 'exit 7' TERM; echo here; sleep 60; exit 8"))
    put(runner, "stop")
    assert told(attempt.ended(10)) == [125, 7, 0, "cancelled", 0]


def test_a_kill_reaches_the_children_of_a_shell(runner: Runner) -> None:
    attempt = here(runner.start("sh", "-c", f"trap '' TERM; sleep 60 & echo here; echo $! > {runner.dir}/child; wait", grace=200))
    child = int((runner.dir / "child").read_text())
    put(runner, "stop")
    attempt.ended(10)
    until(lambda: processes().get(child, (0, "Z"))[1] == "Z", 10, "the child's end")


def test_a_command_that_had_ended_when_the_stop_is_seen_has_ended_by_itself(runner: Runner) -> None:
    attempt = here(runner.start("sh", "-c", "echo here; while ! [ -e go ]; do sleep 0.01; done", popen={"cwd": runner.dir}))
    command = next(pid for pid, (parent, _) in processes().items() if parent == attempt.process.pid)
    with held_up(attempt):
        (runner.dir / "go").touch()
        until(lambda: processes()[command][1] == "Z", 10, "the command's end")
        put(runner, "stop")
    assert told(attempt.ended(5)) == [0, 0, 0, "", 0]


def test_a_stop_is_not_missed_between_the_claim_and_the_command(runner: Runner) -> None:
    """At every moment about the claim: it ends either without one, or is cancelled."""
    for number in range(1, 41):
        attempt = runner.start("sleep", "60", attempt=number)
        time.sleep(number * 0.0002)
        put(runner, "stop")
        assert attempt.wait(5) == (125 if attempt.path("claim").exists() else 0)
        assert not attempt.path("claim").exists() or attempt.status["error"] == "cancelled"
        for path in runner.dir.iterdir():
            path.unlink()


def test_a_stop_that_comes_with_the_claim_runs_nothing(runner: Runner, tmp_path: Path) -> None:
    """The file appears in the moment of the claim: here it is the claim itself."""
    attempt = runner.start("touch", str(tmp_path / "ran"), stop="0.1.claim")
    assert attempt.wait(5) == 125
    assert told(attempt) == [125, -1, 0, "cancelled", 0]
    assert attempt.verdict == "failed\n"
    assert not (tmp_path / "ran").exists()


def test_the_stop_file_may_have_another_name(runner: Runner) -> None:
    put(runner, "stop")
    attempt = here(runner.start("sh", "-c", POLITE, stop="halt", input="none", step=3))
    put(runner, "halt")
    assert told(attempt.ended(5)) == [125, 0, 0, "cancelled", 0]


@pytest.mark.parametrize("wrong", [{"stop": ""}, {"stop": "a/b"}, {"input": "stdin"}, {"timeout": "1s"}, {"grace": "-1"}, {"retries": ""}])
def test_a_wrong_word_for_it_runs_nothing(runner: Runner, wrong: dict[str, str]) -> None:
    assert runner.start("true", popen={"stderr": subprocess.DEVNULL}, **wrong).wait() == 125  # type: ignore[arg-type]
    assert runner.files == set()


# --- hold


def test_a_held_step_waits_after_its_gate_and_goes_on_when_released(runner: Runner) -> None:
    put(runner, "hold", "")
    runner.before(b"input")
    attempt = runner.start("cat", step=1)
    at_the_gate(attempt)
    assert not attempt.path("claim").exists()
    (runner.dir / "hold").unlink()
    assert attempt.ended(5).out == b"input"


def test_a_held_step_can_be_stopped(runner: Runner) -> None:
    put(runner, "hold", "")
    attempt = runner.start("true")
    at_the_gate(attempt)
    put(runner, "stop")
    assert attempt.wait(5) == 0
    assert runner.files == {"hold", "stop"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_a_held_step(runner: Runner, number: int) -> None:
    put(runner, "hold", "")
    attempt = runner.start("true")
    at_the_gate(attempt)
    attempt.process.send_signal(number)
    assert attempt.wait(5) == 128 + number
    assert runner.files == {"hold"}


def test_a_step_that_runs_is_not_held(runner: Runner) -> None:
    attempt = here(runner.start("sh", "-c", "echo here; while ! [ -e go ]; do sleep 0.01; done", popen={"cwd": runner.dir}))
    put(runner, "hold", "")
    (runner.dir / "go").touch()
    assert attempt.ended(5).status["exit"] == 0


def test_a_hold_is_seen_to_go_without_inotify_too(runner: Runner) -> None:
    put(runner, "hold", "")
    attempt = runner.start("true", through=without_inotify())
    time.sleep(0.3)
    assert attempt.process.poll() is None
    (runner.dir / "hold").unlink()
    attempt.ended(5)


# --- out of time


def test_a_command_out_of_time_is_told_to_end(runner: Runner) -> None:
    attempt = runner.shell("echo before; exec sleep 60", timeout=300)
    assert told(attempt) == [125, -1, 15, "timed_out", 0]
    assert attempt.status["finished"] - attempt.status["started"] >= 300_000
    assert text(attempt.log, 1) == b"before\n"


def test_a_command_that_ends_well_out_of_time_is_out_of_time(runner: Runner) -> None:
    assert told(runner.shell(POLITE, timeout=300)) == [125, 0, 0, "timed_out", 0]


def test_a_command_out_of_time_is_killed_after_the_grace(runner: Runner) -> None:
    attempt = runner.shell(DEAF, timeout=200, grace=300)
    assert told(attempt) == [125, -1, 9, "timed_out", 0]
    assert attempt.status["finished"] - attempt.status["started"] >= 500_000


def test_a_command_that_writes_all_the_time_runs_out_of_it_too(runner: Runner) -> None:
    assert told(runner.shell("trap '' TERM; while :; do echo x; done", timeout=200, grace=200))[1:] == [-1, 9, "timed_out", 0]


def test_time_at_the_gate_does_not_count(runner: Runner) -> None:
    runner.before(b"late", verdict=None)
    attempt = runner.start("sh", "-c", "sleep 0.3; cat", step=1, timeout=2000)
    time.sleep(2)
    runner.judge("ok 1\n")
    assert attempt.ended(10).out == b"late"


def test_a_command_within_its_time_is_left_alone(runner: Runner) -> None:
    assert told(runner.shell("sleep 0.3", timeout=60_000)) == [0, 0, 0, "", 0]


def test_the_first_word_counts(runner: Runner) -> None:
    attempt = here(runner.start("sh", "-c", "trap 'echo asked; sleep 0.5; exit 3' TERM; echo here; while :; do sleep 0.02; done", timeout=300))
    until(lambda: text(attempt.log, 1).endswith(b"asked\n"), 10, "it is asked to end")
    put(runner, "stop")
    assert told(attempt.ended(5)) == [125, 3, 0, "timed_out", 0]


# --- attempts left


@pytest.mark.parametrize("script", ["exit 3", "kill -9 $$", "exec /no/such/program"])
def test_a_failure_with_attempts_left_is_not_judged(runner: Runner, script: str) -> None:
    assert runner.start("sh", "-c", script, retries=2).ended(judged=False).status["exit"] != 0


def test_an_attempt_out_of_time_with_attempts_left_is_not_judged(runner: Runner) -> None:
    attempt = runner.start("sleep", "60", retries=1, timeout=200)
    assert told(attempt.ended(judged=False)) == [125, -1, 15, "timed_out", 0]


@pytest.mark.parametrize("word", ["cancelled", "timed_out"])
def test_a_stopped_attempt_is_judged_whatever_is_left(runner: Runner, word: str) -> None:
    attempt = here(runner.start("sh", "-c", POLITE, retries=3))
    put(runner, "stop", word)
    assert told(attempt.ended(5)) == [125, 0, 0, word, 0]


def test_a_success_with_attempts_left_is_judged(runner: Runner) -> None:
    runner.run("true", retries=5)


def test_the_next_gate_waits_while_another_attempt_may_come(runner: Runner) -> None:
    later = runner.start("cat", step=1)
    runner.start("sh", "-c", "echo wrong; exit 1", retries=1).ended(judged=False)
    at_the_gate(later)
    assert runner.start("sh", "-c", "echo right", attempt=2).wait(5) == 0
    assert later.ended(5).out == b"right\n"


# --- without input, without output


def test_a_step_without_input_does_not_wait_and_reads_nothing(runner: Runner) -> None:
    (runner.dir / "1.verdict").write_text("failed\n")
    attempt = runner.shell("cat; readlink /proc/self/fd/0", step=2, input="none")
    assert attempt.out == b"/dev/null\n"
    assert attempt.status["in"] == 0


def test_a_step_with_input_is_the_usual_one(runner: Runner) -> None:
    runner.before(b"input")
    assert runner.run("cat", step=1, input="verdict").out == b"input"


@pytest.mark.parametrize("delimiters", [{}, {"begin": "out", "end": "err"}])
def test_without_output_both_streams_are_logged_and_none_is_kept(runner: Runner, delimiters: dict[str, str]) -> None:
    attempt = runner.shell("echo out; echo err >&2; echo more", output="none", **delimiters)
    assert attempt.out == b""
    assert (text(attempt.log, 1), text(attempt.log, 2)) == (b"out\nmore\n", b"err\n")


# --- as the first process


def test_as_the_first_process_its_end_is_the_end_of_all(runner: Runner, first: tuple[str, ...]) -> None:
    sleep = f"sleep 62.{runner.sanitized:d}"
    attempt = here(runner.start("sh", "-c", f"setsid {sleep} & echo here; wait", through=first))
    put(runner, "stop")
    attempt.ended(5)
    assert subprocess.run(["pgrep", "-f", f"^{sleep}$"], check=False, capture_output=True).returncode == 1
