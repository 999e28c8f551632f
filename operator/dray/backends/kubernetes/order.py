"""The order by which an attempt is launched: docs/protocol.md has its form. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from dray import runner
from dray.backends import Launching
from dray.pod import Key
from dray.settings import Settings
from dray.spec import Step


def order(key: Key, step: Step, words: Sequence[str], given: Launching, settings: Settings) -> bytes:
    """Of this attempt, to run these words."""
    options = [*runner.step_options(step, given.retries, given.masked, settings), "--mirror"]
    command = runner.step_command(*key, step, words, settings, options=options)
    variables = [f"{name}={value}" for name, value in given.environment.items()]
    return b"".join(field.encode() + b"\0" for field in (*variables, "", *command[2:]))
