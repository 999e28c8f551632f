"""What the documents tell a reader to type."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "http://127.0.0.1:3000"  # where a reader's Dray listens


def blocks(file: str, language: str) -> list[str]:
    """The fenced blocks of a language; those without one are a shell's, or what a command says."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / file).read_text(), re.MULTILINE | re.DOTALL)
    return [block for kind, block in found if kind == language]
