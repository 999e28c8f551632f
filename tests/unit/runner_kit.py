"""Runs the native runner on this machine, in a directory of the test's own, and reads what it leaves there."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.process import until

SOURCE = Path(__file__).parents[2] / "operator" / "dray" / "runner"
BINARIES = ("dray-runner", "dray-runner-sanitized")
KIB = 1024
MIB = KIB * KIB
LONG = 1024 * MIB if os.environ.get("DRAY_TEST_FULL") == "1" else 64 * MIB
PYTHON = (sys.executable, "-I", "-S", "-c")


@functools.cache
def build(name: str) -> Path:
    """The program as its source is now. Skips where the compiler has no sanitizers."""
    target = "sanitized" if name.endswith("-sanitized") else "all"
    made = subprocess.run(["make", "-s", "-C", str(SOURCE), target], capture_output=True, text=True, check=False)
    if made.returncode and target == "sanitized" and ("asan" in made.stderr or "ubsan" in made.stderr):
        pytest.skip("the C compiler has no sanitizers")
    assert made.returncode == 0, made.stderr
    return SOURCE / "bin" / name


@dataclass(frozen=True)
class Block:
    """One block of a log. `stream`: 1 stdout, 2 stderr, 0 the marker."""

    payload: bytes
    lines: int
    time: int
    stream: int
    open: bool


def blocks(log: bytes) -> list[Block]:
    """A log taken apart; it must hold whole blocks only, each as docs/protocol.md has it."""
    found, at = [], 0
    while at < len(log):
        size, lines, time, stream, flags, rest = struct.unpack_from("<IIqBB6s", log, at)
        payload = log[at + 24 : at + 24 + size]
        assert len(payload) == size
        assert stream in (0, 1, 2)
        assert flags in (0, 1)
        assert rest == bytes(6)
        if flags:
            assert lines == 0
            assert payload
            assert b"\n" not in payload
        else:
            assert lines == payload.count(b"\n") + (not payload.endswith(b"\n"))
        found.append(Block(payload, lines, time, stream, bool(flags)))
        at += 24 + size
    return found


def text(found: Sequence[Block], stream: int) -> bytes:
    return b"".join(block.payload for block in found if block.stream == stream)


def step_words(*command: str, step: int = 0, attempt: int = 1, **options: Any) -> list[str]:
    """The words of `dray-runner step`. Options are the command line's: `log_cap=1` for `--log-cap 1`, a list for one again and again, True for a flag."""
    given: dict[str, object] = {"output": "stdout", "log_cap": 16 * MIB, "data_cap": 0, "floor": 0} | options
    words = ["--step", str(step), "--attempt", str(attempt)]
    for name, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return [*words, "--", *command]


@dataclass
class Attempt:
    """One attempt of a step: running, or ended."""

    process: subprocess.Popen[bytes]
    dir: Path
    step: int
    number: int

    def path(self, kind: str) -> Path:
        return self.dir / f"{self.step}.{self.number}.{kind}"

    @property
    def out(self) -> bytes:
        return self.path("out").read_bytes()

    @property
    def log(self) -> list[Block]:
        return blocks(self.path("log").read_bytes())

    @property
    def status(self) -> dict[str, Any]:
        line = self.path("status").read_text()
        assert line.count("\n") == 1
        assert line.endswith("\n")
        status: dict[str, Any] = json.loads(line)
        return status

    @property
    def verdict(self) -> str:
        return (self.dir / f"{self.step}.verdict").read_text()

    def wait(self, within: float = 60) -> int:
        return self.process.wait(within)

    def ended(self, within: float = 60, *, judged: bool = True) -> Attempt:
        """Waits for the end, and holds what is true of every attempt that came to it; and of one that was judged."""
        code = self.wait(within)
        status = self.status
        sizes = {"out": self.path("out").stat().st_size, "log": self.path("log").stat().st_size}
        assert status | sizes | {"exit": code} == status
        assert status["lines"] == sum(block.lines for block in self.log)
        assert int(self.path("claim").read_text()) == status["started"] <= status["finished"]
        with self.path("out").open("rb") as out:
            assert status["sha256"] == hashlib.file_digest(out, "sha256").hexdigest()
        if judged:
            assert self.verdict == (f"ok {self.number}\n" if code == 0 else "failed\n")
        else:
            assert not (self.dir / f"{self.step}.verdict").exists()
        assert [name for name in os.listdir(self.dir) if name.startswith(".")] == []  # noqa: PTH208
        return self


class Runner:
    """The program, and a directory in which it finds and leaves its files."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary, self.dir = binary, directory
        self._started: list[subprocess.Popen[bytes]] = []

    def close(self) -> None:
        """Kills what a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()

    @property
    def sanitized(self) -> bool:
        return self.binary.name.endswith("sanitized")

    def start(
        self, *command: str, step: int = 0, attempt: int = 1, through: Sequence[str] = (), popen: Mapping[str, Any] | None = None, **options: Any
    ) -> Attempt:
        """Options as for `step_words`. `through`: a command to run the runner by."""
        words = ["step", "--dir", str(self.dir), *step_words(*command, step=step, attempt=attempt, **options)]
        return Attempt(self.execute(*words, through=through, **dict(popen or {})), self.dir, step, attempt)

    def execute(self, *words: str, through: Sequence[str] = (), **popen: Any) -> subprocess.Popen[bytes]:
        """The program with these words."""
        self._started.append(subprocess.Popen([*through, str(self.binary), *words], **popen))
        return self._started[-1]

    def run(self, *command: str, **options: Any) -> Attempt:
        """An attempt that ends."""
        return self.start(*command, **options).ended()

    def shell(self, script: str, **options: Any) -> Attempt:
        return self.run("sh", "-c", script, **options)

    def python(self, script: str, *words: str, **options: Any) -> Attempt:
        return self.run(*PYTHON, script, *words, **options)

    def before(self, output: bytes, verdict: str | None = "ok 1\n", promised: int | None = None) -> None:
        """What step 0 leaves for step 1: its output, the status that tells its size, and the verdict when that has fallen."""
        (self.dir / "0.1.out").write_bytes(output)
        size = len(output) if promised is None else promised
        (self.dir / "0.1.status").write_text(said_of(output, size=size))
        if verdict is not None:
            self.judge(verdict)

    def judge(self, verdict: str) -> None:
        """Step 0's verdict falls."""
        self.lay("0.verdict", verdict.encode())

    def lay(self, name: str, content: bytes) -> None:
        """A file comes, complete, as the operator's do: by a link."""
        (self.dir / ".laid").write_bytes(content)
        (self.dir / name).hardlink_to(self.dir / ".laid")
        (self.dir / ".laid").unlink()

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.dir.iterdir()}


@pytest.fixture(params=BINARIES)
def each_build(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """The runner, plain and sanitized, in an empty directory. A test file names it: `runner = each_build`."""
    directory = tmp_path / "volume"
    directory.mkdir()
    with closing(Runner(build(request.param), directory)) as made:
        yield made


def said_of(output: bytes, *, size: int | None = None, boot: str = "") -> str:
    """A status as far as the next gate reads it."""
    said = {"exit": 0, "in": 0, "out": len(output) if size is None else size, "log": 0, "sha256": hashlib.sha256(output).hexdigest(), "boot": boot}
    return json.dumps(said, separators=(",", ":")) + "\n"


def wait_for_out(attempt: Attempt, wanted: Callable[[bytes], bool]) -> None:
    until(lambda: attempt.path("out").exists() and wanted(attempt.out), 10, "the command's output")


@contextmanager
def held_up(attempt: Attempt) -> Iterator[None]:
    """The runner does nothing meanwhile: what its command writes stays in the pipes."""
    attempt.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        attempt.process.send_signal(signal.SIGCONT)


def processes() -> dict[int, tuple[int, str]]:
    """(parent, state) of every process of this machine, by its id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(") ")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(path.parent.name)] = (int(parent), state)
    return found


def memory_peak(pid: int) -> int:
    """The most memory the process has held so far, in bytes; 0 when it has just ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    return 0


class Agent:
    """A conversation. What is told unasked is counted in `told`."""

    def __init__(self, runner: Runner) -> None:
        argv = [str(runner.binary), "agent", "--dir", str(runner.dir)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.told = 0
        self._number = 0
        self._read = b""

    def send(self, raw: bytes) -> None:
        assert self.process.stdin is not None
        left = memoryview(raw)
        while left:
            left = left[self.process.stdin.write(left) :]

    def ask(self, request: str, body: bytes = b"") -> bytes | int:
        """The answer's bytes, or its errno."""
        self._number += 1
        self.send(f"{self._number} {request}\n".encode() + body)
        return self.answer(str(self._number))

    def look(self) -> list[str]:
        found = self.ask("look")
        assert isinstance(found, bytes)
        return sorted(found.decode().splitlines())

    def answer(self, number: str) -> bytes | int:
        while (word := self._line().split())[0] == "0" != number:
            assert word == ["0", "0"]
            self.told += 1
        assert word[0] == number
        size = int(word[1])
        return -size if size < 0 else self._take(size)

    def hears(self, within: float) -> bool:
        """Whether it is told that something changed, within that many seconds."""
        if not self._read and not self._fill(within):
            return False
        assert self._line() == "0 0"
        self.told += 1
        return True

    def close(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(10)

    def _line(self) -> str:
        while b"\n" not in self._read:
            assert self._fill(20), "no answer"
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def _take(self, size: int) -> bytes:
        while len(self._read) < size:
            assert self._fill(20), "no answer"
        taken, self._read = self._read[:size], self._read[size:]
        return taken

    def _fill(self, within: float) -> bool:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], within)[0]:
            return False
        got = self.process.stdout.read(MIB)
        assert got, "the agent has ended"
        self._read += got
        return True


@pytest.fixture
def conversation(runner: Runner) -> Iterator[Agent]:
    """In the runner's directory; it ends well when its stdin does."""
    started = Agent(runner)
    try:
        yield started
        assert started.close() == 0
    finally:
        started.process.kill()
        started.process.wait()
        if started.process.stdout is not None:
            started.process.stdout.close()


FIRST = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
HOME = ("unshare", "--user", "--map-root-user", "--pid", "--mount-proc", "--fork", "--kill-child")


def namespaces(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command; skips where this user cannot have such."""
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces for this user")
    return command


@pytest.fixture
def as_first() -> tuple[str, ...]:
    """What makes the runner PID 1."""
    return namespaces(FIRST)


@pytest.fixture
def at_home() -> tuple[str, ...]:
    """What makes the runner PID 1 and shows it so in /proc."""
    return namespaces(HOME)
