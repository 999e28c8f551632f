"""The native runner's Python side: what its files say, and that both sides agree on it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess

import pytest
from runner_kit import Runner, blocks, each_build, text

from dray.pod import Status
from dray.runner import Traces, box_command, launch_file, marks, order, status_line, step_command, traces
from dray.settings import Settings
from dray.spec import Step

runner = each_build

STATUS = Status(
    exit=0, code=0, signal=0, error="", errno=0, bytes_in=3, bytes_out=5, started_at=10, finished_at=20, sha256=hashlib.sha256(b"whole").hexdigest()
)


def listed(name: str, content: bytes) -> bytes:
    """A line of the agent's `look`."""
    return b"%s %d %s\n" % (name.encode(), len(content), content.partition(b"\n")[0])


def test_a_status_that_python_wrote_is_read_as_it_was() -> None:
    assert traces(listed("3.2.status", status_line(STATUS))) == {(3, 2): Traces(status=STATUS)}


def test_a_status_that_the_runner_wrote_is_read(runner: Runner) -> None:
    attempt = runner.shell("printf whole; exit 4", attempt=2)
    raw = attempt.path("status").read_bytes()
    status = traces(listed("0.2.status", raw))[0, 2].status
    assert status is not None
    assert (status.exit, status.code, status.error, status.bytes_out, status.sha256) == (4, 4, "", 5, STATUS.sha256)


def test_a_status_that_python_wrote_has_the_runners_form(runner: Runner) -> None:
    written = runner.run("true").status
    assert list(json.loads(status_line(STATUS))) == list(written)


@pytest.mark.parametrize(("output", "error"), [(b"whole", ""), (b"wh\0le", "input"), (b"whol", "input")])
def test_a_gate_takes_a_status_that_python_wrote_and_proves_the_output(runner: Runner, output: bytes, error: str) -> None:
    (runner.dir / "0.1.out").write_bytes(output)
    (runner.dir / "0.1.status").write_bytes(status_line(STATUS))
    runner.judge("ok 1\n")
    attempt = runner.run("cat", step=1)
    assert (attempt.status["error"], attempt.out) == (error, b"" if error else output)


@pytest.mark.parametrize(
    "wrong", [b"", b"{", b"[]", b"{}", status_line(STATUS).replace(b'"sha256":', b'"sha":'), status_line(STATUS).replace(b":5,", b':"5",')]
)
def test_a_status_that_is_none_is_none(wrong: bytes) -> None:
    assert traces(listed("0.1.status", wrong)) == {(0, 1): Traces()}


def test_marks_are_told_and_are_no_traces() -> None:
    listing = listed("stop", b"cancelled\n") + listed("hold", b"") + listed("0.1.claim", b"7\n") + listed("halts", b"")
    assert marks(listing) == {"stop", "hold"}
    assert traces(listing) == {(0, 1): Traces(claimed_at=7)}
    assert marks(b"") == frozenset()


def test_further_options_stand_before_the_command() -> None:
    step = Step(source="image")
    words = step_command(2, 1, step, ["sh", "-c", "exit"], Settings(), options=["--retries", "1", "--mask", "TOKEN"])
    assert " ".join(words).endswith(" --retries 1 --mask TOKEN -- sh -c exit")
    assert step_command(2, 1, step, ["sh"], Settings()) == [*words[: words.index("--retries")], "--", "sh"]


def test_the_runner_takes_what_python_gives_it(runner: Runner) -> None:
    words = step_command(0, 1, Step(source="image"), ["sh", "-c", "echo $TOKEN"], Settings(), options=["--mask", "TOKEN", "--timeout", "60000"])
    words[0], words[words.index("--dir") + 1] = str(runner.binary), str(runner.dir)
    subprocess.run(words, env={"PATH": os.environ["PATH"], "TOKEN": "abcd"}, check=True)
    assert (runner.dir / "0.1.out").read_bytes() == b"abcd\n"
    assert text(blocks((runner.dir / "0.1.log").read_bytes()), 1) == b"****\n"


def test_the_box_takes_what_python_gives_it(runner: Runner) -> None:
    options = ["--input", "none", "--stop", "halt"]
    command = step_command(1, 2, Step(source="image", output="stderr"), ["sh", "-c", 'echo "$GREETING" >&2'], Settings(), options=options)
    runner.lay(launch_file(1, 2), order({"GREETING": "grüß\nGott"}, command))
    words = box_command(1, options=options)
    words[0], words[words.index("--dir") + 1] = str(runner.binary), str(runner.dir)
    subprocess.run(words, env={"PATH": os.environ["PATH"]}, check=True)
    assert (runner.dir / "1.2.out").read_text() == "grüß\nGott\n"
