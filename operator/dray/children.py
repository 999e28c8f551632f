"""Processes that this one starts."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> Callable[[], None]:
    """For `preexec_fn`: the child gets SIGTERM when the thread that starts it is gone. Prepared here: between fork and exec nothing is loaded."""
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
