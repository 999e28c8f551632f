"""What is piped into `dray run`: the input of the job's first step."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Iterator

AT_ONCE = 2**20  # bytes: what is no more than this is sent in one piece, and again where an answer is lost
_BLOCK = 2**18
_SILENCE = 2.0  # seconds, after which a user may want to know what is waited for


def piped() -> bool:
    """Whether something is: a file or a pipe, no terminal and no /dev/null."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def blocks(told: Callable[[str], None]) -> Iterator[bytes]:
    """As it comes. `told` is called where nothing does at first."""
    if not select.select([0], [], [], _SILENCE)[0]:
        told("reading the job's input from stdin (none: </dev/null)")
    while block := os.read(0, _BLOCK):
        yield block


def begin(found: Iterator[bytes]) -> bytes:
    """The first of it, up to AT_ONCE bytes or a block more; all of it where that is less."""
    begun = bytearray()
    for block in found:
        begun += block
        if len(begun) >= AT_ONCE:
            break
    return bytes(begun)
