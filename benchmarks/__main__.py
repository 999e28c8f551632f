"""`python -m benchmarks`: measures, prints, writes. The exit code tells only whether everything could be measured."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import signal
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker

from benchmarks import ROOT, report
from benchmarks.bench import Bench, Found
from benchmarks.groups import MEASURES
from benchmarks.rows import GROUPS, ROWS, groups_of
from kit.images import Images

ROUNDS, QUICK_ROUNDS = 5, 2
log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        groups = groups_of(given.rows)
    except KeyError as error:
        parser.error(f"no row or group is named {error}; there are {', '.join(GROUPS)}, and {', '.join(row.name for row in ROWS)}")
    if given.quick:
        print("--quick: sizes are small, so figures and verdicts mean nothing")
    for number in (signal.SIGINT, signal.SIGTERM):  # what was started is ended either way
        signal.signal(number, signal.default_int_handler)
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    engine = docker.from_env(timeout=600)
    try:
        with tempfile.TemporaryDirectory(prefix="dray-bench-", dir=_disk(engine)) as folder:
            bench = Bench(engine, Images(engine), rounds, given.quick, dict(given.peer), Path(folder))
            failed = [group for group in groups if not _measured(bench, group, given.json)]
    finally:
        engine.close()
    if failed:
        print(f"not measured: {', '.join(failed)}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure Dray beside its peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows or groups of rows; all of them by default. A group is measured as a whole")
    parser.add_argument("--rounds", type=int, help=f"turns of each ({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: shows that it runs, and no more. Writes only where --json says")
    parser.add_argument("--peer", action="append", default=[], type=_peer, metavar="NAME=URL", help="a server with Dray's contract to hold beside")
    parser.add_argument(
        "--json", type=Path, help=f"where results go, groups measured before stay (benchmarks/{report.RESULTS.name}, and from it {report.DOC.name})"
    )
    return parser


def _peer(text: str) -> tuple[str, str]:
    name, parted, url = text.partition("=")
    if not name or not parted or not url.startswith("http://"):
        raise argparse.ArgumentTypeError("must be NAME=http://HOST:PORT")
    return name, url


def _disk(engine: docker.DockerClient) -> Path:
    """A folder for temporary files, on the engine's disk where one is found there."""
    folders = [Path(tempfile.gettempdir()), Path("/var/tmp"), ROOT]
    try:
        disk = Path(engine.info()["DockerRootDir"]).stat().st_dev
    except OSError:
        disk = -1
    same = [folder for folder in folders if folder.stat().st_dev == disk and os.access(folder, os.W_OK)]
    if not same:
        print("The engine's disk is not at hand: files of the peers lie on another one.")
    return (same or folders)[0]


def _measured(bench: Bench, group: str, path: Path | None) -> bool:
    """Measures, prints and writes one group; False, with the failure told, where that was not possible."""
    begun = time.monotonic()
    print(f"--- {group}", flush=True)
    try:
        found = MEASURES[group](bench)
    except Exception:  # one group's failure is not the others'
        log.exception("%s could not be measured", group)
        return False
    _print(found)
    print(f"    took {time.monotonic() - begun:.0f} s", flush=True)
    _write(bench, group, found, path)
    return True


def _print(found: Found) -> None:
    for row in ROWS:
        if row.name in found.rows:
            for line in report.lines(row, found.rows[row.name]):
                print("   ", report.text(line))
        elif row.name in found.skipped:
            print(f"    {row.name}: left out: {found.skipped[row.name]}")
    for name, note in found.notes.items():
        print(f"    {name}: {note}")


def _write(bench: Bench, group: str, found: Found, path: Path | None) -> None:
    path = path or (None if bench.quick else report.RESULTS)
    if path is None:
        return
    rounded = {row: {name: [float(f"{value:.5g}") for value in values] for name, values in series.items()} for row, series in found.rows.items()}
    results = report.read(path)
    results[group] = {"machine": _machine(bench), "rounds": bench.rounds, "rows": rounded, "skipped": found.skipped, "notes": found.notes}
    report.write(path, results)
    if path == report.RESULTS:
        report.DOC.write_text(report.document(report.DOC.read_text(), results))


def _machine(bench: Bench) -> dict[str, Any]:
    info = bench.engine.info()
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processors": info["NCPU"],
        "memory": info["MemTotal"],
        "engine": info["ServerVersion"],
        "storage": info["Driver"],
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
