"""The time, as records and logs have it."""

from __future__ import annotations

import time

SECOND = 10**6  # microseconds


def microseconds() -> int:
    """Now, since the epoch."""
    return time.time_ns() // 1000
