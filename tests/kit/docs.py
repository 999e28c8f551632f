"""What the documents tell a reader to type."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "http://127.0.0.1:3000"  # where a reader's Dray listens


def blocks(file: str, language: str) -> list[str]:
    """The fenced blocks of a language; those without one are a shell's, or what a command says."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / file).read_text(), re.MULTILINE | re.DOTALL)
    return [block for kind, block in found if kind == language]


def command(file: str, beginning: str) -> list[str]:
    """The words of the one line to be typed that begins so."""
    lines = [line for block in blocks(file, "bash") for line in block.splitlines() if line.startswith(beginning)]
    assert len(lines) == 1, f"{beginning}: {lines}"
    return shlex.split(lines[0], comments=True)


def type_in(file: str, words: str, folder: Path, replaced: Mapping[str, str], **env: str) -> None:
    """The one block in which the words are, with what the test has for what stands there. As from a reader's shell: not as part of a make."""
    [block] = [block for block in blocks(file, "bash") if words in block]
    for theirs, ours in replaced.items():
        assert theirs in block, f"{theirs} is not in\n{block}"
        block = block.replace(theirs, ours)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=own | env, check=True, timeout=580)
