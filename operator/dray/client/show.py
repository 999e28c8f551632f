"""What the verbs print on stdout: JSON, YAML, names or tables of jobs, and bytes. Containers' text is made safe for a terminal."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dray.client.api import Json
from dray.client.text import safe, shown

_NARROWEST = 80  # columns of a table
_WIDE = 10_000  # where it is no terminal, nothing is cut off
_COLOURS = {"complete": "green", "error": "red", "running": "cyan"}


class Form(StrEnum):
    """Of what is printed about jobs."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"  # the id alone


def line(text: str) -> None:
    """One line of text."""
    sys.stdout.buffer.write(shown(text, sys.stdout).encode(errors="replace") + b"\n")


def octets(pieces: Iterable[bytes]) -> None:
    """Byte for byte, but to a terminal as safe text."""
    if not sys.stdout.isatty():
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        sys.stdout.write(safe(decoder.decode(piece), keep="\t\n"))
    sys.stdout.write(safe(decoder.decode(b"", final=True)))


def job(record: Json, form: Form) -> None:
    """A record: `table` shows its fields, and a row for each step."""
    if form is not Form.TABLE:
        plain(record, form)
        return
    label = {"finishedIn": "took", "createdAt": "created", "rerunOf": "rerun of"}
    for key in ("id", "name", "status", "message", "reason", "fault", "createdAt", "finishedIn", "rerunOf", "labels"):
        value = record.get(key)
        if value not in (None, "", {}):
            line(f"{label.get(key, key)}: {_field(key, value)}")
    for words in record.get("stderr", ()):
        line(f"stderr: {safe(words)}")
    line("")
    _table(("STEP", "NAME", "SOURCE", "STATE", "EXIT", "TOOK", "OUTPUT"), [_step(*numbered) for numbered in enumerate(record["steps"], 1)])


def jobs(found: Sequence[Json], form: Form) -> None:
    """Summaries."""
    match form:
        case Form.NAME:
            for summary in found:
                line(summary["id"])
        case Form.TABLE:
            rows = [(j["id"], j["name"], j["status"], f"{j['stepsCompleted']}/{j['steps']}", _age(j["createdAt"]), took(j.get("finishedIn"))) for j in found]
            _table(("ID", "NAME", "STATUS", "STEPS", "AGE", "TOOK"), rows)
        case _:
            plain(list(found), form)


def size(octets: int | None) -> str:
    """As people read it."""
    if octets is None:
        return ""
    amount = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def plain(found: Any, form: Form) -> None:
    """As JSON or YAML, or the name."""
    terminal = sys.stdout.isatty()
    if form is Form.NAME:
        line(found["id"])
    elif form is Form.YAML:
        sys.stdout.write(yaml.safe_dump(found, sort_keys=False, allow_unicode=not terminal))
    else:
        text = json.dumps(found, indent=2, ensure_ascii=False)
        sys.stdout.write((safe(text, keep="\n") if terminal else text) + "\n")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On a narrow terminal names and sources are cut; ids never, they are to be copied."""
    console = Console(highlight=False)
    console.width = max(console.width, _NARROWEST) if console.is_terminal else _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, column in enumerate(columns):
        widest = 0 if column in ("NAME", "SOURCE") else max(len(row[at]) for row in (columns, *rows))
        table.add_column(column, no_wrap=True, min_width=widest)
    for row in rows:
        table.add_row(*(Text(safe(cell, keep=""), style=_COLOURS.get(cell, "")) for cell in row))
    with console.capture() as drawn:
        console.print(table)
    for row in drawn.get().splitlines():
        print(row.rstrip())


def _step(number: int, step: Json) -> tuple[str, ...]:
    code = step["exitCode"]
    ran = seconds(step)
    return str(number), step["name"], step["source"], step["state"], "" if code is None else str(code), took(ran), size(step["bytesOut"])


def seconds(step: Json) -> float | None:
    """How long its command ran."""
    if step["startedAt"] is None or step["finishedAt"] is None:
        return None
    begun, ended = (datetime.fromisoformat(step[name]) for name in ("startedAt", "finishedAt"))
    return (ended - begun).total_seconds()


def _field(key: str, value: Any) -> str:
    if key == "labels":
        value = ", ".join(f"{name}={text}" for name, text in value.items())
    return took(value) if key == "finishedIn" else safe(str(value), keep="")


def took(time: float | None) -> str:
    return "" if time is None else f"{time:.1f} s"


def _age(created: str) -> str:
    """In its largest unit. `created`: as the API's `createdAt`."""
    left = max(0, (datetime.now(UTC) - datetime.fromisoformat(created[:19]).replace(tzinfo=UTC)).total_seconds())
    for unit, length in (("s", 60), ("m", 60), ("h", 24)):
        if left < length:
            return f"{int(left)}{unit}"
        left //= length
    return f"{int(left)}d"
