"""The native runner's box: which orders it runs, what ends its wait, and that nothing of an attempt is left in the next. Plain and sanitized."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from runner_kit import KIB, MIB, Agent, Attempt, Runner, as_first, conversation, each_build, memory_peak, processes, step_words, wait_for_out

from dray.runner import RUNNER, order
from kit.process import until

runner = each_build
first = as_first
agent = conversation

FAIL = ("sh", "-c", "exit 3")


def start(runner: Runner, step: int = 0, *, through: Sequence[str] = (), popen: Mapping[str, Any] | None = None, **options: str) -> subprocess.Popen[bytes]:
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return runner.execute("box", "--dir", str(runner.dir), "--step", str(step), *words, through=through, **dict(popen or {}))


def launch(
    runner: Runner, box: subprocess.Popen[bytes], *command: str, step: int = 0, attempt: int = 1, env: Mapping[str, str] | None = None, **options: Any
) -> Attempt:
    """Orders an attempt, of the box's that may yet be started."""
    runner.lay(f"{step}.{attempt}.launch", order(env or {}, [RUNNER, "step", *step_words(*command, step=step, attempt=attempt, **options)]))
    return Attempt(box, runner.dir, step, attempt)


def waits(box: subprocess.Popen[bytes]) -> None:
    until(lambda: processes().get(box.pid, (0, ""))[1] == "S", 10, "the box waits")
    time.sleep(0.1)
    assert box.poll() is None


def failed(attempt: Attempt) -> Attempt:
    """When it has ended, and its box goes on."""
    until(attempt.path("status").exists, 20, "the attempt's end")
    waits(attempt.process)
    assert not (attempt.dir / f"{attempt.step}.verdict").exists()
    return attempt


# --- one attempt


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_an_order_is_run_as_a_step(runner: Runner, moment: str) -> None:
    runner.before(b"input\n")
    if moment == "before":
        launch(runner, None, "sh", "-c", "cat; echo oh >&2; exit 4", step=1)  # type: ignore[arg-type]
        box = start(runner, 1)
    else:
        box = start(runner, 1)
        waits(box)
        launch(runner, box, "sh", "-c", "cat; echo oh >&2; exit 4", step=1)
    attempt = Attempt(box, runner.dir, 1, 1).ended(10)
    assert (attempt.out, attempt.status["code"], attempt.status["in"]) == (b"input\n", 4, 6)
    assert [block.payload for block in attempt.log if block.stream == 2] == [b"oh\n"]


def test_an_ordered_attempt_waits_at_its_gate(runner: Runner) -> None:
    runner.before(b"input", verdict=None)
    box = start(runner, 1)
    attempt = launch(runner, box, "cat", step=1)
    time.sleep(0.4)
    assert not attempt.path("claim").exists()
    runner.judge("ok 1\n")
    assert attempt.ended(5).out == b"input"


def test_words_and_variables_of_an_order_may_be_any(runner: Runner) -> None:
    words = ["", "two words", "line\nend", "--", "=", "ünïcode", "'\"$\\"]
    box = start(runner, popen={"env": {"PATH": os.environ["PATH"], "GREETING": "container", "KEPT": "yes"}})
    env = {"GREETING": "order", "EMPTY": "", "LINES": "a\nb=c"}
    attempt = launch(runner, box, "sh", "-c", 'printf "%s\\0" "$@"; cat /proc/$$/environ', "sh", *words, env=env).ended(10)
    variables = {"PATH": os.environ["PATH"], "KEPT": "yes"} | env
    assert attempt.out.decode().split("\0") == [*words, *(f"{name}={value}" for name, value in variables.items()), ""]


def test_a_large_order_comes_through_the_agent(runner: Runner, agent: Agent) -> None:
    env = {f"VARIABLE_{number}": "x" * 100 * KIB for number in range(10)}
    content = order(env, [RUNNER, "step", *step_words("sh", "-c", "set | wc -c; echo $VARIABLE_9 | wc -c")])
    assert 1000 * KIB < len(content) <= MIB
    box = start(runner)
    assert agent.ask(f"write 0.1.launch {len(content)}", content) == b""
    assert f"0.1.launch {len(content)}" in agent.look()
    attempt = Attempt(box, runner.dir, 0, 1).ended(20)
    assert [int(size) >= expected for size, expected in zip(attempt.out.split(), (1000 * KIB, 100 * KIB + 1), strict=True)] == [True, True]


def test_the_values_of_an_order_are_masked(runner: Runner) -> None:
    box = start(runner, popen={"env": os.environ | {"CONTAINERS": "hush-hush"}})
    attempt = launch(runner, box, "sh", "-c", "echo $CONTAINERS $ORDERS", env={"ORDERS": "s3cret"}, mask=["CONTAINERS", "ORDERS"]).ended(10)
    assert attempt.log[0].payload == b"********* ******\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"A=1\0",
        b"no variable\0\0" + b"".join(word.encode() + b"\0" for word in step_words("true")),
        b"\0" + b"".join(word.encode() + b"\0" for word in step_words("true"))[:-1],
        b"\0" + b"".join(word.encode() + b"\0" for word in step_words("true", attempt=2)),
        b"\0" + b"".join(word.encode() + b"\0" for word in step_words("true", step=1)),
        b"\0" + b"".join(word.encode() + b"\0" for word in step_words("true", colour="red")),
        b"\0" + b"".join(word.encode() + b"\0" for word in step_words("true"))[: -len(b"--\0true\0")],
        b"A=" + b"x" * MIB + b"\0\0" + b"".join(word.encode() + b"\0" for word in step_words("true")),
    ],
    ids=["empty", "nothing", "no words", "no variable", "cut", "another attempt", "another step", "a wrong option", "no command", "too large"],
)
def test_an_order_that_is_none_runs_nothing(runner: Runner, content: bytes) -> None:
    runner.lay("0.1.launch", content)
    assert start(runner, popen={"stderr": subprocess.DEVNULL}).wait(10) == 125
    assert runner.files == {"0.1.launch"}


def test_a_link_is_no_order(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "order").write_bytes(order({}, [RUNNER, "step", *step_words("true")]))
    (runner.dir / "0.1.launch").symlink_to(tmp_path / "order")
    assert start(runner, popen={"stderr": subprocess.DEVNULL}).wait(10) == 125
    assert runner.files == {"0.1.launch"}


def test_orders_of_other_steps_and_other_files_are_none_of_a_boxs(runner: Runner) -> None:
    box = start(runner, 1, input="none")
    for name in ("0.1.launch", "11.1.launch", "1.01.launch", "1.0.launch", "1.1.launches", "1.launch", "1.1"):
        runner.lay(name, b"")
    waits(box)
    assert launch(runner, box, "true", step=1, input="none").ended(10).status["exit"] == 0


# --- one after another


def test_a_failure_that_may_be_followed_waits_for_the_next_order(runner: Runner) -> None:
    box = start(runner)
    for attempt in (1, 2):
        assert failed(launch(runner, box, *FAIL, attempt=attempt, retries=3 - attempt)).status["exit"] == 3
    assert launch(runner, box, "echo", "well", attempt=3).ended(10).out == b"well\n"


def test_the_last_failure_is_the_boxs(runner: Runner) -> None:
    box = start(runner)
    failed(launch(runner, box, *FAIL, retries=1))
    assert launch(runner, box, "sh", "-c", "exit 5", attempt=2).ended(10).status["exit"] == 5


def test_a_success_with_attempts_left_ends_the_box(runner: Runner) -> None:
    assert launch(runner, start(runner), "true", retries=3).ended(10).status["exit"] == 0


def test_an_input_may_be_read_by_each_attempt(runner: Runner) -> None:
    runner.before(b"input")
    box = start(runner, 1)
    assert failed(launch(runner, box, "sh", "-c", "cat; exit 3", step=1, retries=1)).out == b"input"
    assert launch(runner, box, "cat", step=1, attempt=2).ended(10).out == b"input"


def test_the_first_attempt_of_a_box_may_be_any(runner: Runner) -> None:
    box = start(runner)
    failed(launch(runner, box, *FAIL, attempt=7, retries=1))
    assert launch(runner, box, "true", attempt=9).ended(10).status["exit"] == 0


def test_of_several_orders_the_highest_runs_and_none_below_it_ever(runner: Runner) -> None:
    for attempt in (2, 10, 9):
        launch(runner, None, *FAIL, attempt=attempt, retries=1)  # type: ignore[arg-type]
    box = start(runner)
    failed(Attempt(box, runner.dir, 0, 10))
    launch(runner, box, "true", attempt=8)
    waits(box)
    assert launch(runner, box, "true", attempt=11).ended(10).status["exit"] == 0
    assert {name for name in runner.files if name.endswith(".claim")} == {"0.10.claim", "0.11.claim"}


def test_an_attempt_that_was_begun_is_not_begun_again(runner: Runner) -> None:
    runner.lay("0.1.claim", b"1\n")
    launch(runner, None, "true", retries=1)  # type: ignore[arg-type]
    assert start(runner, popen={"stderr": subprocess.DEVNULL}).wait(10) == 125
    assert runner.files == {"0.1.claim", "0.1.launch"}


def test_orders_are_seen_without_inotify_too(runner: Runner) -> None:
    limit = "/proc/sys/user/max_inotify_instances"
    through = ["unshare", "--user", "--map-root-user", "sh", "-c", f'echo 0 > {limit} && exec "$0" "$@"']
    if subprocess.run([*through, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces for this user")
    box = start(runner, through=through)
    waits(box)
    assert launch(runner, box, "true").ended(10).status["exit"] == 0


# --- what ends the wait


@pytest.mark.parametrize("name", ["stop", "0.verdict"])
@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_what_ends_a_box_that_has_run_nothing(runner: Runner, name: str, moment: str) -> None:
    if moment == "before":
        runner.lay(name, b"cancelled\n")
        launch(runner, None, "true")  # type: ignore[arg-type]
    box = start(runner)
    if moment == "meanwhile":
        waits(box)
        runner.lay(name, b"cancelled\n")
    assert box.wait(5) == 0
    assert not (runner.dir / "0.1.claim").exists()


@pytest.mark.parametrize("name", ["stop", "0.verdict"])
def test_a_box_that_will_run_nothing_more_ends_as_its_last_attempt(runner: Runner, name: str) -> None:
    box = start(runner)
    failed(launch(runner, box, *FAIL, retries=1))
    runner.lay(name, b"failed\n")
    assert box.wait(5) == 3


def test_a_stopped_attempt_is_the_boxs_last(runner: Runner) -> None:
    attempt = launch(runner, start(runner), "sh", "-c", "echo here; exec sleep 60", retries=3)
    wait_for_out(attempt, lambda out: out == b"here\n")
    runner.lay("stop", b"cancelled\n")
    assert attempt.ended(10).status["error"] == "cancelled"


@pytest.mark.parametrize("options", [{}, {"step": 1}])
def test_a_box_ends_when_there_is_no_input_to_come(runner: Runner, options: dict[str, int]) -> None:
    given: dict[str, str] = {} if options else {"input": "given"}
    box = start(runner, **options, **given)  # type: ignore[arg-type]
    waits(box)
    runner.lay("0.verdict" if options else "input.verdict", b"failed\n")
    assert box.wait(5) == 0


def test_a_step_that_runs_whatever_happened_is_waited_for(runner: Runner) -> None:
    runner.lay("0.verdict", b"failed\n")
    runner.lay("stop", b"cancelled\n")
    box = start(runner, 1, input="none", stop="halt")
    waits(box)
    assert launch(runner, box, "true", step=1, input="none", output="none", stop="halt").ended(10).status["exit"] == 0


def test_a_halt_ends_the_wait_for_a_step_that_runs_whatever_happened(runner: Runner) -> None:
    box = start(runner, 1, input="none", stop="halt")
    waits(box)
    runner.lay("halt", b"timed_out\n")
    assert box.wait(5) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("attempts", [0, 1])
def test_a_signal_ends_the_wait(runner: Runner, number: int, attempts: int) -> None:
    box = start(runner)
    waits(box)
    if attempts:
        failed(launch(runner, box, *FAIL, retries=1))
    box.send_signal(number)
    assert box.wait(5) == 128 + number


def test_a_signal_goes_to_the_command_that_runs(runner: Runner) -> None:
    attempt = launch(runner, start(runner), "sh", "-c", "trap 'exit 6' TERM; echo here; while :; do sleep 0.02; done")
    wait_for_out(attempt, lambda out: out == b"here\n")
    attempt.process.send_signal(signal.SIGTERM)
    assert attempt.ended(10).status["code"] == 6


def test_without_its_directory_a_box_ends(runner: Runner) -> None:
    done = subprocess.run([str(runner.binary), "box", "--dir", f"{runner.dir}/none", "--step", "0"], capture_output=True, check=False)
    assert (done.returncode, b"none: No such file" in done.stderr) == (125, True)


@pytest.mark.parametrize("words", [[], ["--step"], ["--step", "1", "--input", "given"], ["--step", "0", "--stop", "a/b"], ["--step", "0", "--", "true"]])
def test_a_wrong_command_line_waits_for_nothing(runner: Runner, words: list[str]) -> None:
    done = subprocess.run([str(runner.binary), "box", "--dir", str(runner.dir), *words], capture_output=True, check=False)
    assert (done.returncode, done.stderr[:7]) == (125, b"usage: ")


# --- its processes


LEAVE = 'setsid sh -c "trap : TERM HUP; sleep 63 & echo \\$! \\$\\$ > {dir}/left; wait" & while [ ! -s {dir}/left ]; do sleep 0.01; done; exit 3'
ASK = "for pid in $(cat {dir}/left); do kill -0 $pid 2>/dev/null && echo alive; done; echo asked"


@pytest.mark.parametrize("as_pid_1", [False, True])
def test_what_an_attempt_leaves_is_gone_before_the_next(runner: Runner, first: tuple[str, ...], as_pid_1: bool) -> None:
    box = start(runner, through=first if as_pid_1 else ())
    failed(launch(runner, box, "sh", "-c", LEAVE.format(dir=runner.dir), retries=1))
    until(lambda: not any(parent == box.pid and state == "Z" for parent, state in processes().values()), 5, "none unburied")
    assert launch(runner, box, "sh", "-c", ASK.format(dir=runner.dir), attempt=2).ended(10).out == b"asked\n"


def test_where_something_cannot_be_killed_nothing_follows(runner: Runner) -> None:
    """It is another user's, as what a set-uid program leaves may be."""
    through = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", 'sleep 68 & exec setpriv --reuid 65534 --clear-groups "$0" "$@"']
    if runner.sanitized or os.geteuid() != 0 or subprocess.run([*through, "true"], capture_output=True, check=False).returncode:
        pytest.skip("being another user is for root, and once is enough")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        other = Runner(Path(shutil.copy(runner.binary, place)), Path(place))
        box = start(other, through=through)
        launch(other, box, *FAIL, retries=3)
        assert box.wait(30) == 3
        assert (other.dir / "0.1.status").exists()


def test_a_runner_that_is_killed_ends_its_box(runner: Runner, first: tuple[str, ...]) -> None:
    """Nobody has said how the attempt ended, so nothing may follow it."""
    attempt = launch(runner, start(runner, through=first), "sh", "-c", "echo here; kill -9 $PPID; sleep 60", retries=5)
    assert attempt.wait(10) == 137
    assert not attempt.path("status").exists()
    assert attempt.path("claim").exists()


def test_a_runner_that_cannot_say_how_it_ended_ends_its_box(runner: Runner) -> None:
    (runner.dir / "0.1.status").mkdir()
    attempt = launch(runner, start(runner, popen={"stderr": subprocess.DEVNULL}), "false", retries=5)
    assert attempt.wait(10) == 125
    assert attempt.path("claim").exists()


def test_the_end_of_a_box_is_the_end_of_all(runner: Runner, first: tuple[str, ...]) -> None:
    sleep = f"sleep 64.{runner.sanitized:d}"
    box = start(runner, through=first)
    launch(runner, box, "sh", "-c", f"setsid {sleep} & exit 0").ended(10)
    assert subprocess.run(["pgrep", "-f", f"^{sleep}$"], check=False, capture_output=True).returncode == 1


def test_a_box_that_waits_reaps_what_comes_to_it(runner: Runner) -> None:
    """Not its children by birth: a process of its parent's whose own parent has died, as one executed in the container is."""
    box = start(runner, through=["sh", "-c", '(sleep 0.3; sleep 0.3) & exec "$0" "$@"'])
    waits(box)
    until(lambda: not any(parent == box.pid for parent, _ in processes().values()), 5, "orphans gone")
    box.terminate()
    assert box.wait(5) == 143


def test_a_box_that_waits_is_small(runner: Runner) -> None:
    if runner.sanitized:
        pytest.skip("sanitizers take memory of their own")
    box = start(runner)
    waits(box)
    failed(launch(runner, box, *FAIL, retries=1, env={"LARGE": "x" * 100 * KIB}))
    assert memory_peak(box.pid) < MIB
    box.terminate()
    box.wait(5)


# --- at any moment


@pytest.mark.parametrize("seed", range(12))
def test_a_box_killed_at_any_moment_leaves_no_attempt_to_run_twice(runner: Runner, first: tuple[str, ...], seed: int) -> None:
    """Whatever it left, another box runs what had no claim, and never what had one."""
    chance = random.Random(seed)
    box = start(runner, through=first)
    ran = runner.dir / "ran"
    for attempt in (1, 2, 3):
        launch(runner, box, "sh", "-c", f"echo {attempt} >> {ran}; exit 3", attempt=attempt, retries=9)
        time.sleep(chance.choice([0, 0.002, 0.01, 0.05]))
    time.sleep(chance.uniform(0, 0.03))
    box.kill()
    box.wait()
    claims, again = {path.name for path in runner.dir.glob("*.claim")}, start(runner, popen={"stderr": subprocess.DEVNULL})
    if "0.3.claim" in claims:
        assert again.wait(10) == 125
    else:
        failed(Attempt(again, runner.dir, 0, 3))
        again.terminate()
        again.wait(5)
    lines = ran.read_text().split() if ran.exists() else []
    assert lines == sorted(set(lines))
    assert {f"0.{line}.claim" for line in lines} <= claims | {"0.3.claim"}


@pytest.mark.parametrize("seed", range(6))
def test_orders_laid_at_any_moment_are_run_in_turn_or_given_up(runner: Runner, seed: int) -> None:
    chance = random.Random(seed)
    box, last = start(runner), 12
    ran = runner.dir / "ran"
    for attempt in range(1, last + 1):
        time.sleep(chance.choice([0, 0, 0.003, 0.02]))
        launch(runner, box, "sh", "-c", f"echo {attempt} >> {ran}; exit 3", attempt=attempt, retries=last - attempt)
    assert box.wait(30) == 3
    lines = [int(line) for line in ran.read_text().split()]
    assert lines == sorted(set(lines))
    assert lines[-1] == last
    assert {path.name for path in runner.dir.glob("*.claim")} == {f"0.{line}.claim" for line in lines}
    assert {path.name for path in runner.dir.glob("*.status")} == {f"0.{line}.status" for line in lines}


@pytest.mark.parametrize("seed", range(8))
def test_a_box_stopped_at_any_moment_ends_as_what_it_ran(runner: Runner, seed: int) -> None:
    """By the stop file or the operator's verdict; what has begun has a status, and the last of it is the box's end."""
    chance = random.Random(seed)
    box, mark = start(runner), chance.choice(["stop", "0.verdict"])
    when = chance.randrange(1, 5)
    for attempt in range(1, 5):
        launch(runner, box, *FAIL, attempt=attempt, retries=9)
        if attempt == when:
            time.sleep(chance.uniform(0, 0.04))
            runner.lay(mark, b"cancelled\n")
        time.sleep(chance.choice([0, 0.01, 0.03]))
    code = box.wait(20)
    claims = sorted(int(path.name.split(".")[1]) for path in runner.dir.glob("*.claim"))
    assert [Attempt(box, runner.dir, 0, attempt).path("status").exists() for attempt in claims] == [True] * len(claims)
    assert code == (Attempt(box, runner.dir, 0, claims[-1]).status["exit"] if claims else 0)
