"""What was measured, in words: lines as they come, results in JSON, and the table in docs/performance.md, which is made of that JSON alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import ROOT
from benchmarks.rows import ROWS, Bound, Row

RESULTS = ROOT / "benchmarks" / "results.json"
DOC = ROOT / "docs" / "performance.md"
_TABLE = re.compile(r"(?<=<!-- made of benchmarks/results.json by `make bench` -->\n).*?(?=<!-- end -->)", re.DOTALL)
_HEAD = "| row | | here | beside it | ratio | must | aim | |\n|---|---|---|---|---|---|---|---|\n"

Results = dict[str, Any]
"""By group: when, rounds, machine, rows (series by row), skipped, notes."""


@dataclass(frozen=True)
class Line:
    """One comparison. `ratio` is the median of the rounds' ratios; without `beside`, nothing is compared and the bound is on the median itself."""

    row: Row
    here: str
    beside: str
    ratio: float | None
    bound: Bound | None
    verdict: str


def lines(row: Row, series: Mapping[str, list[float]]) -> Iterator[Line]:
    """What is judged first, then the other series beside the row's subject."""
    ours = series[row.subject]
    bounds = {bound.beside: bound for bound in row.bounds}
    named = [*bounds, *(name for name in series if name != row.subject and name not in bounds)] or [None]
    for beside in named:
        bound = bounds.get(beside)
        if beside is None:
            yield Line(row, spread(ours), "", None, bound, verdict(row, bound, median(ours)))
        elif beside in series:
            ratio = median(mine / theirs for mine, theirs in zip(ours, series[beside], strict=True))
            yield Line(row, spread(ours), f"{beside}: {spread(series[beside])}", ratio, bound, verdict(row, bound, ratio))


def verdict(row: Row, bound: Bound | None, value: float) -> str:
    """The bound holds the value as it is, not as it is printed."""
    if bound is None:
        return ""
    if bound.aim is not None and _within(row, value, bound.aim):
        return "aim reached"
    if bound.must is None:
        return "below the aim"
    return "ok" if _within(row, value, bound.must) else "short"


def _within(row: Row, value: float, limit: float) -> bool:
    return value <= limit if row.less else value >= limit


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{number(median(values))} ({number(min(values))}–{number(max(values))})"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def text(line: Line) -> str:
    """As it is printed while the benchmark runs."""
    ratio = "" if line.ratio is None else f", ratio {line.ratio:.2f}"
    beside = f" | {line.beside}" if line.beside else ""
    judged = f" [{line.verdict}: {_asked(line)}]" if line.bound else ""
    return f"{line.row.name}: {line.row.title}: {line.here} {line.row.unit}{beside}{ratio}{judged}"


def table(results: Results) -> str:
    """Every row in the order of `rows.py`; one that was not measured says why."""
    made = [*dict.fromkeys(_where(group) for group in results.values()), _HEAD]
    for row in ROWS:
        group = results.get(row.group, {"rows": {}, "skipped": {}})
        if row.name in group["rows"]:
            made += [_cells(line) for line in lines(row, group["rows"][row.name])]
        else:
            why = group["skipped"].get(row.name) or "not measured"
            made.append(f"| `{row.name}` | {row.title} | {why} | | | | | |\n")
    return "".join(made)


def _where(group: Results) -> str:
    """The machine and day of a group, the same words for the same."""
    machine = group["machine"]
    size = f"{machine['processors']} processors, {machine['memory'] / 2**30:.0f} GiB"
    return f"{machine['when'][:10]}, {group['rounds']} rounds: {size}, Docker {machine['engine']} ({machine['storage']}), Python {machine['python']}.\n\n"


def _cells(line: Line) -> str:
    ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
    must, aim = (_limit(line.row, limit) for limit in ((line.bound.must, line.bound.aim) if line.bound else (None, None)))
    return f"| `{line.row.name}` | {line.row.title}, {line.row.unit} | {line.here} | {line.beside} | {ratio} | {must} | {aim} | {line.verdict} |\n"


def _asked(line: Line) -> str:
    assert line.bound is not None
    named = (("must", line.bound.must), ("aim", line.bound.aim))
    return ", ".join(f"{name} {_limit(line.row, limit)}" for name, limit in named if limit is not None)


def _limit(row: Row, limit: float | None) -> str:
    return "" if limit is None else f"{'≤' if row.less else '≥'} {limit:g}"


# --- files


def read(path: Path) -> Results:
    """Empty where there is none."""
    found: Results = json.loads(path.read_text()) if path.exists() else {}
    return found


def write(path: Path, results: Results) -> None:
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def document(text: str, results: Results) -> str:
    """The document with its table made anew."""
    assert _TABLE.search(text), "the document has no place for the table"
    return _TABLE.sub(lambda _: table(results), text)
