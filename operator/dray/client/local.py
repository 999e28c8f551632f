"""`dray run --local`: a Dray of its own for one job, on a free port, with a Redis and a folder that nobody else knows."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dray.children import end_with_parent
from dray.client.api import Api
from dray.client.config import Connection
from dray.client.errors import Failed

_READY_WITHIN, _END_WITHIN = 60.0, 90.0  # seconds
_ENGINE_WITHIN = 10.0  # seconds for an engine that does not answer
_LOOK = 0.05
_LISTENING = "listening on "
_NOT_OURS = ("REDIS_", "DRAY_HOSTS", "DRAY_OUTPUTS", "DRAY_DATA_DIR", "DRAY_METRICS_PORT", "DRAY_KEEP_", "DRAY_SERVER", "OTEL_")


@contextmanager
def server() -> Iterator[Connection]:
    """Where it is. In the end its jobs are cancelled, and nothing of it is left. Raises Failed where it cannot be started."""
    folder, token = Path(tempfile.mkdtemp(prefix="dray-local-")), secrets.token_hex(16)
    try:
        with _ended_by_signals(), _process(folder, token) as process:
            connection = Connection(_url(process, folder / "log"), token)
            api = Api(connection)
            _wait_ready(process, folder / "log", api)
            try:
                yield connection
            finally:
                _cancel_all(api)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _process(folder: Path, token: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "dray.cli", "serve", "--port", "0", "--host", "127.0.0.1", "--data-dir", str(folder / "data")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=_environment(os.environ, token),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is the client's to hear
            preexec_fn=end_with_parent(),  # noqa: PLW1509 (no thread runs yet)
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_WITHIN)
        process.kill()
        process.wait()


def _environment(own: Mapping[str, str], token: str) -> dict[str, str]:
    """The user's settings, but for what leads elsewhere. What ends finishes its cleaning, and nothing is made ahead of a second job."""
    kept = {name: value for name, value in own.items() if not name.startswith(_NOT_OURS)}
    return kept | {"DRAY_TOKEN": token, "DRAY_DRAIN": "finish", "DRAY_SANDBOXES": "0", "LOG_LEVEL": "info"}


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        for said in _said(log):
            if said.startswith(_LISTENING):
                return said.removeprefix(_LISTENING)
        _check(process, log)
        time.sleep(_LOOK)
    raise Failed(f"dray serve did not begin to listen within {_READY_WITHIN:.0f} s: {_last(log)}")


def _wait_ready(process: subprocess.Popen[bytes], log: Path, api: Api) -> None:
    deadline = time.monotonic() + _ENGINE_WITHIN
    while True:
        _check(process, log)
        try:
            api.ready()
            return
        except Failed:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOK)


def _check(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise Failed(f"dray serve ended at once: {_last(log)}")


def _said(log: Path) -> list[str]:
    """The messages of its log; what is no log line as it is."""
    return [_message(line) for line in log.read_text(errors="replace").splitlines()]


def _message(line: str) -> str:
    try:
        return str(json.loads(line)["message"])
    except (ValueError, LookupError, TypeError):
        return line


def _last(log: Path) -> str:
    return next(iter(reversed(_said(log))), "it says nothing")


def _cancel_all(api: Api) -> None:
    """Else it would wait for them."""
    with suppress(Failed):
        for job in api.page({"status": "running"}, 1000)[0]:
            with suppress(Failed):
                api.cancel(job["id"], always=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP are as Ctrl-C: nothing must be left."""
    before: dict[int, Any] = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
