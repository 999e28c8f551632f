"""The job to post: a file, stdin, or steps from the command line."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dray.client.errors import Failed


class _Loader(yaml.SafeLoader):
    """YAML with JSON's types: `on`, `no`, `2016-06-10` and `1_000` are texts, as YAML 1.2 has them."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (the parent's own way)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Without aliases: some lines of them can stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not taken", problem_mark=self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Without a key given twice: the first one would do nothing."""
        seen = set[str]()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


for _tag, _form, _first in (
    ("null", r"null|~|", "n~"),
    ("bool", r"true|false", "tf"),
    ("int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", "-0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), [*_first, ""] if _tag == "null" else list(_first))


def read(file: str | None, steps: Sequence[str]) -> bytes:
    """JSON, or what claims to be. `file`: its name, `-` for stdin. `steps`: each an image and its command, split as a shell does.

    Raises Failed where it cannot be read, or neither or both are given.
    """
    if (file is None) == (not steps):
        raise Failed("give either a file (- for stdin) or steps (--step)")
    if file is None:
        return json.dumps({"steps": [step(text) for text in steps]}).encode()
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Failed(f"{file}: {error.strerror or error}") from None
    if not content.strip():
        raise Failed(f"{_named(file)} is empty")
    return content if _is_json(file, content) else _from_yaml(file, content)


def step(text: str) -> dict[str, Any]:
    """`IMAGE [COMMAND…]` as a step. Raises Failed."""
    try:
        image, *command = shlex.split(text)
    except ValueError as error:
        raise Failed(f"--step {text!r}: {'names no image' if not text.strip() else error}") from None
    return {"source": image, "command": command} if command else {"source": image}


def is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def _is_json(file: str, content: bytes) -> bool:
    """By its name, else by its look. It is sent as it is then: the server tells what is wrong with it, and where."""
    if file.endswith((".yaml", ".yml")):
        return False
    return file.endswith(".json") or content.lstrip()[:1] == b"{"


def _named(file: str) -> str:
    return "stdin" if file == "-" else file


def _from_yaml(file: str, content: bytes) -> bytes:
    name = _named(file)
    try:
        return json.dumps(yaml.load(content, _Loader), allow_nan=False).encode()  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise Failed(f"{name}{where}: {error.problem or error}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise Failed(f"{name}: no job in YAML: {' '.join(str(error).split())}") from None
