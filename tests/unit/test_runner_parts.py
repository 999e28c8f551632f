"""Large files that the agent puts into the volume, part by part. Plain and sanitized."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import stat

import pytest
from runner_kit import LONG, MIB, Agent, Runner, conversation, each_build, memory_peak, said_of

runner = each_build
agent = conversation


def append(agent: Agent, offset: int, part: bytes, name: str = "0.1.out") -> bytes | int:
    return agent.ask(f"append {name} {offset} {len(part)}", part)


def test_parts_become_a_file_when_it_is_finished(runner: Runner, agent: Agent) -> None:
    assert append(agent, 0, b"first ") == b""
    assert append(agent, 6, b"second") == b""
    assert agent.look() == []
    assert agent.ask("finish 0.1.out 12") == b""
    assert agent.look() == ["0.1.out 12"]
    assert (runner.dir / "0.1.out").read_bytes() == b"first second"
    assert (runner.dir / "0.1.out").stat().st_mode & 0o7777 == 0o644
    assert runner.files == {"0.1.out"}


def test_a_file_may_be_empty(runner: Runner, agent: Agent) -> None:
    assert append(agent, 0, b"") == b""
    assert agent.ask("finish 0.1.out 0") == b""
    assert agent.look() == ["0.1.out 0"]


def test_each_request_may_be_made_again(runner: Runner, agent: Agent) -> None:
    """As when its answer was lost with the connection: another agent goes on."""
    for offset, part in ((0, b"abc"), (3, b"def"), (6, b"")):
        for _ in range(2):
            assert append(agent, offset, part) == b""
    assert agent.ask("finish 0.1.out 6") == b""
    assert agent.ask("finish 0.1.out 6") == errno.EEXIST
    assert append(agent, 0, b"abc") == errno.EEXIST
    assert (runner.dir / "0.1.out").read_bytes() == b"abcdef"


def test_from_the_start_it_begins_anew(runner: Runner, agent: Agent) -> None:
    append(agent, 0, b"much that is wrong")
    append(agent, 0, b"right")
    assert agent.ask("finish 0.1.out 5") == b""
    assert (runner.dir / "0.1.out").read_bytes() == b"right"


def test_nothing_is_left_out_between_parts(runner: Runner, agent: Agent) -> None:
    append(agent, 0, b"abc")
    assert append(agent, 4, b"e") == errno.EINVAL
    assert append(agent, 2**62, b"e") == errno.EINVAL
    assert agent.ask("finish 0.1.out 3") == b""


def test_a_file_is_finished_at_its_size_alone(runner: Runner, agent: Agent) -> None:
    assert agent.ask("finish 0.1.out 0") == errno.ENOENT
    append(agent, 0, b"abc")
    assert [agent.ask(f"finish 0.1.out {size}") for size in (0, 2, 4)] == [errno.EINVAL] * 3
    assert agent.look() == []
    assert agent.ask("finish 0.1.out 3") == b""


def test_what_is_there_is_never_changed(runner: Runner, agent: Agent) -> None:
    append(agent, 0, b"new")
    (runner.dir / "0.1.out").write_bytes(b"old")
    assert append(agent, 0, b"new") == errno.EEXIST
    assert agent.ask("finish 0.1.out 3") == errno.EEXIST
    assert (runner.dir / "0.1.out").read_bytes() == b"old"


def test_files_are_made_side_by_side(runner: Runner, agent: Agent) -> None:
    for offset in range(0, 30, 3):
        for name in ("0.1.out", "1.1.out"):
            assert append(agent, offset, name[:3].encode(), name) == b""
    for name in ("0.1.out", "1.1.out"):
        assert agent.ask(f"finish {name} 30") == b""
        assert (runner.dir / name).read_bytes() == name[:3].encode() * 10


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "../out", "a/b", "x" * 256])
def test_a_name_beside_the_directory_is_refused(runner: Runner, agent: Agent, name: str) -> None:
    assert append(agent, 0, b"9 look\n", name) == errno.EINVAL
    assert agent.ask(f"finish {name} 7") == errno.EINVAL
    assert agent.look() == []
    assert runner.files == set()


def test_a_part_too_large_is_refused_and_its_bytes_are_no_requests(runner: Runner, agent: Agent) -> None:
    (runner.dir / "stop").write_text("x")
    assert append(agent, 0, b"3 drop stop\n" * 100_000) == errno.EINVAL
    assert agent.look() == ["stop 1 x"]


def test_what_is_none_in_its_place_is_not_followed_and_makes_way_for_a_new_one(runner: Runner, agent: Agent) -> None:
    part = runner.dir / ".0.1.out.part"
    (runner.dir / "precious").write_bytes(b"precious")
    part.symlink_to("precious")
    assert append(agent, 1, b"x") == errno.ELOOP
    assert agent.ask("finish 0.1.out 8") == errno.EINVAL
    part.unlink()
    os.mkfifo(part)
    assert append(agent, 1, b"x") == errno.ENXIO
    assert append(agent, 0, b"x") == b""
    assert stat.S_ISREG(part.lstat().st_mode)
    part.unlink()
    part.symlink_to("precious")
    assert append(agent, 0, b"x") == b""
    assert stat.S_ISREG(part.lstat().st_mode)
    assert (runner.dir / "precious").read_bytes() == b"precious"


def test_a_large_output_is_laid_in_little_memory_and_is_the_next_steps_input(runner: Runner, agent: Agent) -> None:
    """As an output kept from another pod is: its status comes after it, and the verdict last."""
    size, part, hashed = 1024 * MIB if LONG > 512 * MIB else 64 * MIB, os.urandom(MIB), hashlib.sha256()
    for offset in range(0, size, MIB):
        assert append(agent, offset, part) == b""
        hashed.update(part)
    assert agent.ask(f"finish 0.1.out {size}") == b""
    status = said_of(b"", size=size).replace(hashlib.sha256(b"").hexdigest(), hashed.hexdigest()).encode()
    assert agent.ask(f"write 0.1.status {len(status)}", status) == b""
    assert agent.ask("write 0.verdict 5", b"ok 1\n") == b""
    assert memory_peak(agent.process.pid) < (64 if runner.sanitized else 8) * MIB
    attempt = runner.run("sha256sum", step=1)
    assert (attempt.out.split()[0].decode(), attempt.status["in"]) == (hashed.hexdigest(), size)


@pytest.mark.parametrize("seed", range(8))
def test_agents_that_die_at_any_moment_leave_what_others_can_complete(runner: Runner, seed: int) -> None:
    chance, whole, at, done = random.Random(seed), random.Random(-seed).randbytes(3 * MIB), 0, False
    for _ in range(40):
        agent = Agent(runner)
        if chance.random() < 0.3:
            at = 0  # an operator that knows of none
        while not done and chance.random() < 0.8:
            part = whole[at : at + chance.choice([1, 1000, 70_000, MIB])]
            answer: bytes | int = append(agent, at, part) if part else agent.ask(f"finish 0.1.out {len(whole)}")
            assert answer == b""
            at, done = at + len(part), not part
        part = whole[at : at + 100_000]
        agent.send((f"9999 append 0.1.out {at} {len(part)}\n".encode() + part)[: chance.randrange(100_000)])
        agent.process.kill()
        agent.process.wait()
        for pipe in (agent.process.stdin, agent.process.stdout):
            assert pipe is not None
            pipe.close()
        assert (runner.dir / "0.1.out").exists() == done
    if done:
        assert (runner.dir / "0.1.out").read_bytes() == whole
