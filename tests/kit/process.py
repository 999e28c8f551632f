"""A child process with its output in a file, and small things about ports and waiting."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class Process:
    """Started at once, in a process group of its own. `output` is what it wrote, stdout and stderr together."""

    def __init__(self, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None) -> None:
        self.output_file = output
        with output.open("ab") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, minus the signal where one ended it; None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        return self.output_file.read_text(errors="replace")

    def signal(self, number: int) -> None:
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to it alone, not to what it started."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def stop(self, within: float = 20) -> int:
        """SIGTERM; the exit code. Raises TimeoutError, after killing it, where it does not end in time."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"process {self.pid} did not end within {within} s of SIGTERM") from None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until(holds: Callable[[], bool], within: float, what: str) -> None:
    """Raises AssertionError where it does not hold in time."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)


def wait_ready(process: Process, holds: Callable[[], bool], within: float, what: str) -> None:
    """Until it holds; raises AssertionError with the process's output where it ended instead."""

    def ready_or_ended() -> bool:
        return holds() or process.code is not None

    until(ready_or_ended, within, what)
    assert process.code is None, f"{what}: ended with {process.code}\n{process.output}"
