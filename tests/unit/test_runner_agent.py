"""The native runner's agent and sandbox: what they answer, and what they tell unasked. Plain and sanitized."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runner_kit import MIB, Agent, Runner, conversation, each_build, memory_peak, processes

from kit.process import until

runner = each_build
agent = conversation


# --- requests


def test_a_look_shows_the_files_of_the_layout(runner: Runner, agent: Agent) -> None:
    assert agent.look() == []
    attempt = runner.shell("echo hello", attempt=12)
    for other in ("stops", "0.stop", "0.out", "0.1.2.out", "a.1.log", "0.a.log", "0.12.logs", ".0.12.log", "0.12", "12.verdicts", "plan"):
        (runner.dir / other).write_text("x")
    (runner.dir / "1.1.out").symlink_to("plan")
    (runner.dir / "1.1.log").mkdir()
    log, status = attempt.path("log").stat().st_size, attempt.path("status").read_text()
    assert agent.look() == sorted(
        [
            f"0.12.claim 17 {attempt.status['started']}",
            "0.12.out 6",
            f"0.12.log {log}",
            f"0.12.status {len(status)} {status.rstrip()}",
            "0.verdict 6 ok 12",
        ]
    )


@pytest.mark.parametrize("name", ["stop", "halt", "hold"])
def test_a_mark_is_written_shown_and_dropped(runner: Runner, agent: Agent, name: str) -> None:
    assert agent.ask(f"write {name} 10", b"cancelled\n") == b""
    assert agent.look() == [f"{name} 10 cancelled"]
    assert agent.ask(f"write {name} 10", b"timed_out\n") == errno.EEXIST
    assert agent.ask(f"drop {name}") == b""
    assert agent.look() == []


def test_a_look_tells_the_first_line_alone_and_no_more_than_4_kib_of_it(runner: Runner, agent: Agent) -> None:
    (runner.dir / "0.1.status").write_text("one\ntwo\n")
    (runner.dir / "1.1.status").write_text("x" * 9000)
    (runner.dir / "2.1.status").write_text("")
    assert agent.look() == ["0.1.status 8 one", f"1.1.status 9000 {'x' * 4096}", "2.1.status 0 "]


def test_a_look_at_a_thousand_files(runner: Runner, agent: Agent) -> None:
    for number in range(1000):
        (runner.dir / f"{number}.1.claim").write_text(f"{number}\n")
    assert len(agent.look()) == 1000


@pytest.mark.parametrize(
    ("offset", "most", "expected"), [(0, 100, b"0123456789"), (3, 4, b"3456"), (8, 4, b"89"), (10, 1, b""), (99, 1, b""), (0, 0, b""), (2**62, 1, b"")]
)
def test_a_read_gives_what_there_is(runner: Runner, agent: Agent, offset: int, most: int, expected: bytes) -> None:
    (runner.dir / "0.1.out").write_bytes(b"0123456789")
    assert agent.ask(f"read 0.1.out {offset} {most}") == expected


def test_a_large_read_is_whole_and_takes_little_memory(runner: Runner, agent: Agent) -> None:
    whole = os.urandom(9 * MIB)
    (runner.dir / "0.1.out").write_bytes(whole)
    got = b""
    while isinstance(block := agent.ask(f"read 0.1.out {len(got)} {4 * MIB}"), bytes) and block:
        got += block
    assert got == whole
    assert memory_peak(agent.process.pid) < (64 if runner.sanitized else 8) * MIB


def test_bytes_of_any_kind_are_read(runner: Runner, agent: Agent) -> None:
    (runner.dir / "any").write_bytes(bytes(range(256)) * 3)
    assert agent.ask("read any 0 1000") == bytes(range(256)) * 3


@pytest.mark.parametrize("body", [b"", b"x", b"text\n2 look\n", bytes(range(256)), b"z" * MIB])
def test_a_file_is_written_whole(runner: Runner, agent: Agent, body: bytes) -> None:
    assert agent.ask(f"write 0.verdict {len(body)}", body) == b""
    assert (runner.dir / "0.verdict").read_bytes() == body
    assert (runner.dir / "0.verdict").stat().st_mode & 0o7777 == 0o644
    assert runner.files == {"0.verdict"}


def test_a_file_is_never_written_over(runner: Runner, agent: Agent) -> None:
    (runner.dir / "0.verdict").write_text("ok 1\n")
    assert agent.ask("write 0.verdict 10", b"cancelled\n") == errno.EEXIST
    assert (runner.dir / "0.verdict").read_text() == "ok 1\n"
    assert runner.files == {"0.verdict"}


def test_a_gate_opens_by_a_verdict_that_the_agent_writes(runner: Runner, agent: Agent) -> None:
    runner.before(b"input", verdict=None)
    attempt = runner.start("cat", step=1)
    assert agent.ask("write 0.verdict 5", b"ok 1\n") == b""
    assert attempt.ended(5).out == b"input"


def test_a_drop_removes_a_file_or_finds_it_gone(runner: Runner, agent: Agent) -> None:
    (runner.dir / "0.1.out").write_bytes(b"x")
    assert agent.ask("drop 0.1.out") == b""
    assert runner.files == set()
    assert agent.ask("drop 0.1.out") == b""


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "../out", "a/b", "/etc/passwd", "x" * 256])
def test_a_name_beside_the_directory_is_refused(runner: Runner, agent: Agent, name: str) -> None:
    (runner.dir / ".hidden").write_text("secret")
    assert agent.ask(f"read {name} 0 10") == errno.EINVAL
    assert agent.ask(f"write {name} 4", b"9 x\n") == errno.EINVAL
    assert agent.ask(f"drop {name}") == errno.EINVAL
    assert agent.look() == []
    assert runner.files == {".hidden"}


def test_a_name_may_have_255_bytes(runner: Runner, agent: Agent) -> None:
    assert agent.ask(f"write {'x' * 255} 1", b"y") == b""
    assert agent.ask(f"read {'x' * 255} 0 10") == b"y"


def test_a_directory_in_a_files_place_makes_way_for_it(runner: Runner, agent: Agent) -> None:
    for name in ("hold", "1.1.out", ".0.1.out.part"):
        (runner.dir / name / "more").mkdir(parents=True)
    assert agent.ask("drop hold") == agent.ask("drop 1.1.out") == b""
    assert agent.ask("write hold 1", b"x") == b""
    assert agent.ask("append 0.1.out 0 4", b"abcd") == agent.ask("finish 0.1.out 4") == b""
    assert agent.look() == ["0.1.out 4", "hold 1 x"]


def test_what_counts_by_its_name_is_told_whatever_it_is(runner: Runner, agent: Agent) -> None:
    for name in ("stop", "0.verdict", "0.1.launch", "0.1.claim", "0.1.status", "0.1.out", "0.1.log"):
        os.mkfifo(runner.dir / name)
    assert [line.split()[0] for line in agent.look()] == ["0.1.launch", "0.verdict", "stop"]


@pytest.mark.parametrize("content", ["", "x" * 4000])
def test_a_look_at_more_files_than_a_job_has_is_short_and_shows_the_marks(runner: Runner, agent: Agent, content: str) -> None:
    for number in range(9000):
        (runner.dir / f"{number}.1.status").write_text(content)
    (runner.dir / "stop").write_text("cancelled\n")
    listing = agent.look()
    assert 200 < len(listing) <= 8193
    assert sum(len(line) + 1 for line in listing) <= MIB
    assert "stop 10 cancelled" in listing
    assert not agent.hears(0.5)


def test_only_regular_files_are_read(runner: Runner, agent: Agent) -> None:
    (runner.dir / "directory").mkdir()
    (runner.dir / "link").symlink_to("/etc/passwd")
    (runner.dir / "dangling").symlink_to("nowhere")
    os.mkfifo(runner.dir / "fifo")
    assert [agent.ask(f"read {name} 0 10") for name in ("directory", "link", "dangling", "fifo", "missing")] == [errno.ENOENT] * 5


def test_a_write_too_large_is_refused_and_its_bytes_are_no_requests(runner: Runner, agent: Agent) -> None:
    body = b"3 drop 0.1.out\n" * 100_000
    (runner.dir / "0.1.out").write_bytes(b"x")
    assert agent.ask(f"write 0.verdict {len(body)}", body) == errno.EINVAL
    assert agent.ask("read 0.1.out 0 9") == b"x"
    assert runner.files == {"0.1.out"}


WRONG = [
    b"",
    b" ",
    b"look",
    b"0 look",
    b"000 look",
    b"x look",
    b"-1 look",
    b"1 look ",
    b"1  look",
    b"1 dance",
    b"1 look now",
    b"1",
    b"1 read a 0",
    b"1 read a x 1",
    b"1 read a 0 1 2",
]
WRONG += [
    b"1 read a -1 1",
    b"1 read a 0 99999999999999999999",
    b"1 write a",
    b"1 write a -1",
    b"1 drop",
    b"1 drop a b",
    b"123456789012345678901 look",
    b"\xff\0",
    b"1 look\0",
    b"1 drop " + b"x" * 100_000,
]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_a_line_that_is_no_request_is_told_and_the_next_is_heard(runner: Runner, agent: Agent, wrong: bytes) -> None:
    agent.send(wrong + b"\n")
    assert agent.answer("0") == errno.EINVAL
    assert agent.ask("look") == b""


@pytest.mark.parametrize("request_line", [f"read a 0 {4 * MIB + 1}"])
def test_a_read_of_too_much_is_refused(runner: Runner, agent: Agent, request_line: str) -> None:
    (runner.dir / "a").write_bytes(b"x")
    assert agent.ask(request_line) == errno.EINVAL
    assert agent.ask(f"read a 0 {4 * MIB}") == b"x"


def test_numbers_of_requests_come_back_as_they_were(runner: Runner, agent: Agent) -> None:
    for number in ("1", "007", "99999999999999999999"):
        agent.send(f"{number} look\n".encode())
        assert agent.answer(number) == b""


def test_many_requests_at_once_are_answered_in_order_however_they_are_cut(runner: Runner, agent: Agent) -> None:
    requests = b"".join(b"%d write %d.verdict %d\n%s%d read %d.verdict 0 99\n" % (2 * n + 1, n, n, b"\n" * n, 2 * n + 2, n) for n in range(60))
    for at in range(0, len(requests), 7):
        agent.send(requests[at : at + 7])
    assert [agent.answer(str(number)) for number in range(1, 121)] == [body for n in range(60) for body in (b"", b"\n" * n)]


# --- what is told unasked


def test_nothing_is_told_before_the_first_look(runner: Runner, agent: Agent) -> None:
    (runner.dir / "0.1.claim").touch()
    assert not agent.hears(0.3)


def rename_in(directory: Path) -> None:
    (directory / ".new").write_text("{}\n")
    (directory / ".new").rename(directory / "1.1.status")


def link_in(directory: Path) -> None:
    (directory / ".new").write_text("ok 1\n")
    (directory / "1.verdict").hardlink_to(directory / ".new")


def grow(directory: Path) -> None:
    with (directory / "0.1.log").open("ab") as log:
        log.write(b"more")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a new output": lambda directory: (directory / "1.1.out").touch(),
    "a new log": lambda directory: (directory / "1.1.log").touch(),
    "a file gone": lambda directory: (directory / "0.1.out").unlink(),
    "a status by rename": rename_in,
    "a verdict by link": link_in,
    "a file renamed away": lambda directory: (directory / "0.1.out").rename(directory / "kept"),
    "a log grown": grow,
    "a stop": lambda directory: (directory / "stop").write_text("cancelled\n"),
    "a halt": lambda directory: (directory / "halt").touch(),
    "a hold gone": lambda directory: (directory / "hold").unlink(),
}


@pytest.fixture
def begun(runner: Runner) -> Runner:
    """With an attempt's files in the directory."""
    for kind in ("claim", "out", "log"):
        (runner.dir / f"0.1.{kind}").write_text("1\n")
    (runner.dir / "hold").touch()
    return runner


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told_once_until_the_next_look(begun: Runner, agent: Agent, change: str) -> None:
    agent.look()
    assert not agent.hears(0.3)  # longer than the time between two comparisons
    changed = time.monotonic()
    CHANGES[change](begun.dir)
    assert agent.hears(1)
    assert time.monotonic() - changed < 0.15  # at once: not by the comparison each 250 ms
    grow(begun.dir)
    (begun.dir / "5.1.claim").touch()
    assert not agent.hears(0.3)
    agent.look()
    (begun.dir / "6.1.claim").touch()
    assert agent.hears(1)


def test_what_changed_before_the_look_is_not_told(begun: Runner, agent: Agent) -> None:
    agent.look()
    assert not agent.hears(0.1)
    for change in ("a new log", "a log grown", "a status by rename"):
        CHANGES[change](begun.dir)
    assert agent.hears(1)
    agent.look()
    assert not agent.hears(0.3)


def test_growing_outputs_and_other_files_are_not_told(begun: Runner, agent: Agent) -> None:
    agent.look()
    with (begun.dir / "0.1.out").open("ab") as out:
        out.write(b"more")
    (begun.dir / ".hidden").touch()
    (begun.dir / "other").touch()
    assert not agent.hears(0.6)


def test_growth_of_a_log_is_told_every_10_ms_at_most(begun: Runner, agent: Agent) -> None:
    told: list[float] = []
    end = time.monotonic() + 0.5
    agent.look()
    while time.monotonic() < end:
        grow(begun.dir)
        if agent.hears(0):
            told.append(time.monotonic())
            agent.look()
    assert 10 < len(told) <= 51


def test_a_new_file_is_told_at_once_while_growth_is_kept_back(begun: Runner, agent: Agent) -> None:
    agent.look()
    grow(begun.dir)
    assert agent.hears(1)
    agent.look()
    changed = time.monotonic()
    (begun.dir / "0.1.status").touch()
    assert agent.hears(1)
    assert time.monotonic() - changed < 0.1


def test_a_step_is_followed_to_its_end(runner: Runner, agent: Agent) -> None:
    """As the operator does: look, be told, look again; nothing that happened stays unseen."""
    attempt = runner.start("sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done")
    while not any(name.startswith("0.verdict ") for name in agent.look()):
        assert agent.hears(2)
    attempt.ended()
    assert f"0.1.log {attempt.path('log').stat().st_size}" in agent.look()
    assert agent.told > 4


def test_changes_are_told_without_inotify_too(begun: Runner) -> None:
    limit = "/proc/sys/user/max_inotify_instances"
    script = f'echo 0 > {limit} && exec "$0" "$@"'
    if not shutil.which("unshare") or subprocess.run(["unshare", "-U", "-r", "sh", "-c", f"echo 0 > {limit}"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces for this user")
    agent = Agent.__new__(Agent)
    argv = ["unshare", "-U", "-r", "sh", "-c", script, str(begun.binary), "agent", "--dir", str(begun.dir)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as agent.process:
        agent.told, agent._number, agent._read = 0, 0, b""  # noqa: SLF001
        agent.look()
        for change in ("a log grown", "a new output", "a status by rename"):
            CHANGES[change](begun.dir)
            assert agent.hears(1)
            agent.look()
        assert agent.close() == 0


def test_an_agent_that_has_nothing_to_do_does_nothing(begun: Runner) -> None:
    agent = Agent(begun)
    agent.look()
    with (begun.dir / "0.1.out").open("ab", buffering=0) as out:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            out.write(b"x" * 1000)
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    _, wait_status, usage = os.wait4(agent.process.pid, 0)
    agent.process.returncode = os.waitstatus_to_exitcode(wait_status)
    assert agent.process.returncode == 0
    assert agent.process.stdout is not None
    agent.process.stdout.close()
    assert usage.ru_utime + usage.ru_stime < 0.3


# --- its end


def test_the_agent_ends_with_its_stdin_whatever_it_was_reading(runner: Runner, agent: Agent) -> None:
    agent.send(b"1 write 0.verdict 10\nhalf")
    assert agent.close() == 0
    assert runner.files == set()


def test_the_agent_ends_well_when_nobody_listens(runner: Runner) -> None:
    agent = Agent(runner)
    agent.look()
    assert agent.process.stdout is not None
    agent.process.stdout.close()
    (runner.dir / "0.1.claim").touch()
    assert agent.process.wait(10) == 0
    assert agent.process.stdin is not None
    agent.process.stdin.close()


def test_an_agent_without_its_directory_says_so(runner: Runner) -> None:
    done = subprocess.run([str(runner.binary), "agent", "--dir", f"{runner.dir}/none"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 125
    assert b"none: No such file" in done.stderr


# --- the sandbox


@contextmanager
def sandbox(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*command, "sandbox"]) as started:
        try:
            yield started
        finally:
            started.kill()


def waits(pid: int) -> bool:
    """Whether it is the runner, and asleep."""
    return Path(f"/proc/{pid}/comm").read_text().startswith("dray-runner") and processes()[pid][1] == "S"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sandbox_ends_at_once(runner: Runner, number: int) -> None:
    with sandbox(str(runner.binary)) as started:
        until(lambda: waits(started.pid), 10, "it waits")
        started.send_signal(signal.SIGCHLD)
        time.sleep(0.05)
        assert started.poll() is None
        started.send_signal(number)
        assert started.wait(1) == 0


def test_a_sandbox_reaps_what_comes_to_it(runner: Runner) -> None:
    if os.geteuid() != 0 or not shutil.which("nsenter"):
        pytest.skip("entering namespaces is for root")
    with sandbox("unshare", "--pid", "--fork", "--kill-child", str(runner.binary)) as outer:
        until(lambda: any(parent == outer.pid and waits(pid) for pid, (parent, _) in processes().items()), 10, "the sandbox")
        inner = next(pid for pid, (parent, _) in processes().items() if parent == outer.pid)

        def children() -> list[str]:
            return [state for parent, state in processes().values() if parent == inner]

        subprocess.run(["nsenter", "-t", str(inner), "-p", "sh", "-c", "for i in 1 2 3; do (sleep 2 &) ; done"], check=True)
        until(lambda: children() == ["S"] * 3, 5, "orphans come")
        until(lambda: children() == [], 5, "orphans gone")
        os.kill(inner, signal.SIGTERM)
        assert outer.wait(5) == 0
