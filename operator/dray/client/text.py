"""Text from elsewhere (containers, a job's fields, a server's answers), made safe for a terminal."""

from __future__ import annotations

import re
import unicodedata
from typing import TextIO

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, format (bidi overrides, invisible ones), surrogates, line and paragraph ends
_JOINERS = "\u200c\u200d"  # of Persian, of emoji: they change nothing but how their neighbours look


def safe(text: str, keep: str = "\t") -> str:
    """The text with nothing in it that a terminal obeys: colours are dropped, the rest is written out as in JSON, `\\u001b`.

    `keep`: characters that stay as they are.
    """
    return "".join(char if char in keep or _harmless(char) else _written_out(char) for char in _COLOURS.sub("", text))


def shown(text: str, stream: TextIO, keep: str = "\t") -> str:
    """Safe where the stream is a terminal, else as it is."""
    return safe(text, keep) if stream.isatty() else text


def _harmless(char: str) -> bool:
    return char in _JOINERS or unicodedata.category(char) not in _UNSAFE


def _written_out(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
