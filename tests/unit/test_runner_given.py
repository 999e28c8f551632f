"""The native runner's first step with an input that it is given: as any step's, from files of other names. Plain and sanitized."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runner_kit import MIB, Agent, Runner, conversation, each_build, said_of

from dray.record import INPUT
from dray.runner import output_file, status_file, verdict_file

GIVEN_OUTPUT, GIVEN_STATUS, GIVEN_VERDICT = output_file(INPUT, 1), status_file(INPUT, 1), verdict_file(INPUT)

runner = each_build
agent = conversation


def give(runner: Runner, content: bytes, *, boot: str = "", promised: bytes | None = None) -> None:
    (runner.dir / GIVEN_OUTPUT).write_bytes(content)
    (runner.dir / GIVEN_STATUS).write_text(said_of(content if promised is None else promised, boot=boot))


def test_what_is_given_is_the_input(runner: Runner) -> None:
    content = bytes(range(256)) * 1000
    give(runner, content)
    runner.lay(GIVEN_VERDICT, b"ok 1\n")
    attempt = runner.run("cat", input="given")
    assert (attempt.out, attempt.status["in"]) == (content, len(content))


def test_it_waits_until_all_is_given(runner: Runner) -> None:
    attempt = runner.start("cat", input="given")
    give(runner, b"late")
    time.sleep(0.4)
    assert not attempt.path("claim").exists()
    runner.lay(GIVEN_VERDICT, b"ok 1\n")
    assert attempt.ended(5).out == b"late"


@pytest.mark.parametrize("stop", ["stop", "verdict"])
def test_nothing_runs_where_nothing_will_be_given(runner: Runner, stop: str) -> None:
    attempt = runner.start("cat", input="given")
    runner.lay("stop" if stop == "stop" else GIVEN_VERDICT, b"cancelled\n")
    assert attempt.wait(5) == 0
    assert not attempt.path("claim").exists()


def cut(runner: Runner) -> None:
    give(runner, b"inpu", promised=b"input")


def altered(runner: Runner) -> None:
    give(runner, b"imput", promised=b"input")


def gone(runner: Runner) -> None:
    give(runner, b"input")
    (runner.dir / GIVEN_OUTPUT).unlink()


def unpromised(runner: Runner) -> None:
    give(runner, b"input")
    (runner.dir / GIVEN_STATUS).unlink()


@pytest.mark.parametrize("spoil", [cut, altered, gone, unpromised])
def test_what_was_not_given_whole_is_not_run_on(runner: Runner, tmp_path: Path, spoil: Callable[[Runner], None]) -> None:
    spoil(runner)
    runner.lay(GIVEN_VERDICT, b"ok 1\n")
    attempt = runner.run("touch", str(tmp_path / "ran"), input="given")
    assert attempt.status["error"] == "input"
    assert not (tmp_path / "ran").exists()


def test_only_the_first_step_is_given_something(runner: Runner) -> None:
    assert runner.start("true", step=1, input="given", popen={"stderr": subprocess.DEVNULL}).wait(5) == 125
    assert runner.files == set()


def test_the_agent_tells_of_what_is_given(runner: Runner, agent: Agent) -> None:
    agent.look()
    content, said = os.urandom(2 * MIB), said_of(b"").strip()
    for at in (0, MIB):
        assert agent.ask(f"append {GIVEN_OUTPUT} {at} {MIB}", content[at : at + MIB]) == b""
    assert agent.ask(f"finish {GIVEN_OUTPUT} {2 * MIB}") == b""
    assert agent.hears(2)
    assert agent.ask(f"write {GIVEN_STATUS} {len(said) + 1}", f"{said}\n".encode()) == b""
    assert agent.ask(f"write {GIVEN_VERDICT} 5", b"ok 1\n") == b""
    (runner.dir / "inputs.verdict").touch()
    assert agent.look() == [f"{GIVEN_OUTPUT} {2 * MIB}", f"{GIVEN_STATUS} {len(said) + 1} {said}", f"{GIVEN_VERDICT} 5 ok 1"]
