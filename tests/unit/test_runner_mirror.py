"""The native runner's mirror: the log on its own streams, which nothing waits for. Plain and sanitized."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from runner_kit import KIB, MIB, PYTHON, Runner, each_build, step_words, text

from dray.runner import RUNNER, order
from kit.process import until

runner = each_build


def mirrored(runner: Runner, tmp_path: Path, *command: str, **options: Any) -> tuple[bytes, bytes, list[bytes]]:
    """What came on stdout and on stderr, and what the log has of both streams and of dray's own."""
    with (tmp_path / "stdout").open("wb") as stdout, (tmp_path / "stderr").open("wb") as stderr:
        popen = {"stdout": stdout, "stderr": stderr, "env": os.environ | {"TOKEN": "hunter2"}}
        attempt = runner.start(*command, mirror=True, popen=popen, **options)
        attempt.wait()
    attempt.ended()
    return (tmp_path / "stdout").read_bytes(), (tmp_path / "stderr").read_bytes(), [text(attempt.log, stream) for stream in (1, 2, 0)]


def test_both_streams_are_shown_as_they_are_logged(runner: Runner, tmp_path: Path) -> None:
    script = 'echo out $TOKEN; echo err $TOKEN >&2; printf "\\377\\0 no end"'
    out, err, _ = mirrored(runner, tmp_path, "sh", "-c", script, mask="TOKEN", output="none")
    assert (out, err) == (b"out *******\n\xff\0 no end", b"err *******\n")


def test_without_it_nothing_is_shown(runner: Runner) -> None:
    attempt = runner.start("sh", "-c", "echo out; echo err >&2", popen={"stdout": subprocess.PIPE, "stderr": subprocess.PIPE})
    assert attempt.process.communicate(timeout=20) == (b"", b"")


def test_the_output_is_what_it_would_be(runner: Runner, tmp_path: Path) -> None:
    out, _, logged = mirrored(runner, tmp_path, "seq", "300000")
    assert (runner.dir / "0.1.out").read_bytes() == out == logged[0]


@pytest.mark.parametrize("seed", range(5))
def test_lines_of_any_length_are_shown(runner: Runner, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    whole = b"".join(chance.randbytes(chance.choice([0, 10, 4095, 4096, 5000, 70_000])) + b"\n" for _ in range(60))
    (tmp_path / "whole").write_bytes(whole)
    assert mirrored(runner, tmp_path, "cat", str(tmp_path / "whole"))[0] == whole


def test_what_the_cap_leaves_out_is_not_shown(runner: Runner, tmp_path: Path) -> None:
    out, err, logged = mirrored(runner, tmp_path, "sh", "-c", "seq 1000000; echo last >&2", log_cap=MIB)
    assert out == logged[0]
    assert err == logged[2] + logged[1]
    assert logged[2].startswith(b"dray: ")
    assert len(out) < MIB


def test_a_pipe_that_is_full_keeps_nothing_back(runner: Runner) -> None:
    """Nobody reads: what has room is there, and the step ends as it would."""
    read, write = os.pipe()
    attempt = runner.start("sh", "-c", "seq 1000000; seq 10 >&2", mirror=True, popen={"stdout": write, "stderr": write})
    os.close(write)
    assert attempt.ended().out.count(b"\n") == 1_000_000
    with open(read, "rb") as pipe:  # noqa: PTH123
        shown = pipe.read()
    assert 32 * KIB <= len(shown) <= 64 * KIB
    assert attempt.out.startswith(shown)


def test_the_next_gate_does_not_wait_for_it(runner: Runner) -> None:
    read, write = os.pipe()
    attempt = runner.start("sh", "-c", "seq 100000", mirror=True, popen={"stdout": write, "stderr": write})
    until((runner.dir / "0.verdict").exists, 20, "the verdict")
    assert runner.run("wc", "-l", step=1).out == b"100000\n"
    os.close(write)
    os.close(read)
    attempt.wait()


def test_nothing_is_missing_where_somebody_reads_slowly(runner: Runner) -> None:
    read, write = os.pipe()
    script = "seq 100000; sleep 0.3; exit 3"
    attempt = runner.start("sh", "-c", script, mirror=True, popen={"stdout": write, "stderr": write})
    os.close(write)
    with open(read, "rb", buffering=0) as pipe:  # noqa: PTH123
        shown = b""
        while more := pipe.read(10_000):
            shown += more
    assert shown == attempt.ended().out


def test_a_pipe_that_nobody_reads_any_more_is_no_fault(runner: Runner) -> None:
    """Not even a signal of it comes to the command."""
    script = """
import signal
signal.signal(signal.SIGPIPE, lambda *_: print('broken', flush=True))
for number in range(100000):
    print(number, flush=number % 100 == 0)
"""
    read, write = os.pipe()
    os.close(read)
    attempt = runner.start(*PYTHON, script, mirror=True, popen={"stdout": write, "stderr": write})
    os.close(write)
    assert attempt.ended().out == b"".join(b"%d\n" % number for number in range(100_000))


def test_closed_streams_show_nothing(runner: Runner) -> None:
    attempt = runner.shell("echo out; echo err >&2", mirror=True, through=["sh", "-c", 'exec "$0" "$@" >&- 2>&-'])
    assert (attempt.out, text(attempt.log, 2)) == (b"out\n", b"err\n")


def test_an_order_may_ask_for_it(runner: Runner) -> None:
    runner.lay("0.1.launch", order({}, [RUNNER, "step", *step_words("sh", "-c", "echo out; echo err >&2", mirror=True)]))
    box = runner.execute("box", "--dir", str(runner.dir), "--step", "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert box.communicate(timeout=20) == (b"out\n", b"err\n")
