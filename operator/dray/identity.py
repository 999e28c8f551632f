"""Who an operator is to the others on its Redis: a name under which it owns jobs.

One that is started again on the same data directory has the same name and goes on at once, where another name would
have to wait for the old one's lease to run out. A lock sees to it that two that run have two names.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def operator_name(data_dir: Path, backend: str) -> Iterator[str]:
    """The name kept in the directory for that backend; a new one where another operator that runs has that, or where none can be kept.

    Who was one of another backend must not go on with that one's jobs.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = os.open(data_dir / ("operator" if backend == "docker" else f"operator-{backend}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield _new()
        return
    try:
        yield _locked_name(file)
    finally:
        os.close(file)


def _locked_name(file: int) -> str:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _new()
    name = os.read(file, 64).decode("ascii", "replace")
    if len(name) != len(_new()):
        name = _new()
        os.pwrite(file, name.encode(), 0)
    return name


def _new() -> str:
    return secrets.token_hex(8)
