"""How soon a follower sees a line of a step that runs. Each line is the time at which it was written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import datetime
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from itertools import islice
from statistics import median

from benchmarks.bench import Bench, Found, settled, turns
from benchmarks.rows import DRAY
from benchmarks.server import Server

LINES, QUICK_LINES = 20, 5
PAUSE = 100_000  # microseconds between two lines
LOOK, WITHIN = 0.01, 60  # seconds: between two looks at the log; for all lines
STEP = "i=0; while [ $i -lt {lines} ]; do touch /tmp/now; stat -c %y /tmp/now; usleep {pause}; i=$((i+1)); done"


def measure(bench: Bench) -> Found:
    found, lines = Found(), bench.sized(LINES, QUICK_LINES)
    image = bench.image.shell(STEP.format(lines=lines, pause=PAUSE))
    with bench.served() as served, closing(Server(served.url)) as server:

        def latency(follow: Callable[[int, str], Generator[str]]) -> float:
            """Milliseconds, the median of a job's lines."""
            with closing(follow(served.port, server.post([image]))) as seen:
                late = [time.time() - _written(line) for line in islice(seen, lines)]
            assert len(late) == lines, f"{len(late)} lines of {lines}"
            settled(served)
            return median(late) * 1000

        measures = {"follow-poll": polled, "follow-events": events}
        if not has_events(served.port, server.run([image])):
            found.skipped["follow-events"] = "the log is answered as JSON where events are asked for"
            del measures["follow-events"]
        for row, series in turns(bench.rounds, {row: partial(latency, follow) for row, follow in measures.items()}).items():
            found.rows[row] = {DRAY: series}
    return found


def _written(line: str) -> float:
    """Seconds since the epoch of `2026-01-31 23:59:59.123456789 +0000`."""
    day, clock, zone = line.split()
    return datetime.fromisoformat(f"{day}T{clock[:15]}{zone}").timestamp()


def polled(port: int, job_id: str) -> Generator[str]:
    """Lines of a log as a client sees them that looks again and again."""
    seen, deadline = 0, time.monotonic() + WITHIN
    with closing(Server(f"http://127.0.0.1:{port}")) as server:
        while time.monotonic() < deadline:
            for line in server.get(f"/jobs/{job_id}/log?index={seen}")["lines"]:
                yield line
                seen += 1
            time.sleep(LOOK)


def events(port: int, job_id: str) -> Generator[str]:
    """Lines of a log as they come to a client that follows its events."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=WITHIN)) as connection:
        for field in _asked(connection, job_id):
            if field.startswith(b"data:") and "line" in (event := json.loads(field[5:])):
                yield event["line"]


def has_events(port: int, job_id: str) -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=WITHIN)) as connection:
        return _asked(connection, job_id).headers.get_content_type() == "text/event-stream"


def _asked(connection: HTTPConnection, job_id: str) -> HTTPResponse:
    connection.request("GET", f"/jobs/{job_id}/log", headers={"Accept": "text/event-stream"})
    return connection.getresponse()
