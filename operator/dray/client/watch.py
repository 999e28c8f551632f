"""`dray run`: a job from its post to its end, told of on stderr as it goes on.

Two threads ask, one for the log, one for the record; what they find goes through one queue, with Ctrl-C's signals.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, NamedTuple

from rich.console import Console
from rich.status import Status
from rich.text import Text

from dray.client import show
from dray.client.api import Api, Json
from dray.client.errors import Failed, Refused, Unreachable
from dray.client.follow import follow
from dray.client.text import shown

TIMED_OUT, DRAY, NO_CODE, CANCELLED = 124, 125, 126, 130  # exit codes; docs/client.md lists them
_LOOK = 0.5  # seconds between two looks at the record
_PATIENCE = 2  # times Ctrl-C; the next one leaves


class News(NamedTuple):
    """`kind`: line, record, end, told, failed or interrupt."""

    kind: str
    found: Any = None


def exit_code(record: Json) -> int:
    """Of a job that has ended."""
    if record["status"] == "complete":
        return 0
    match record.get("reason"):
        case "timed_out":
            return TIMED_OUT
        case "cancelled":
            return CANCELLED
    failed = record.get("failedStep")
    return (record["steps"][failed - 1]["exitCode"] if failed else None) or NO_CODE


class Watch:
    """One job that was just posted."""

    def __init__(self, api: Api, news: SimpleQueue[News], job_id: str) -> None:
        self._api, self._news, self._id = api, news, job_id
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._states: dict[int, str] = {}
        self._interrupts = 0

    def until_end(self, other: Api) -> Json:
        """Its record. `other`: the API once more, for the second thread. Raises Failed."""
        for work in (self._follow, lambda: self._look(other)):
            threading.Thread(target=work, daemon=True).start()
        with self._status() as status:
            while True:
                match self._news.get():
                    case News("line", line):
                        self._line(line)
                    case News("record", record):
                        self._progress(record, status)
                    case News("told", text):
                        self._tell(text)
                    case News("interrupt"):
                        self._interrupted()
                    case News("failed", error):
                        raise error
                    case News("end", record):
                        self._progress(record, status)
                        return dict(record)

    # --- the threads

    def _follow(self) -> None:
        try:
            for event, found in follow(self._api, self._id, lambda text: self._news.put(News("told", text))):
                self._news.put(News("line" if event == "message" else event, found))
        except Exception as error:  # noqa: BLE001 (raised again by who waits for news)
            self._news.put(News("failed", error))

    def _look(self, api: Api) -> None:
        while True:
            with suppress(Failed):  # the one who follows tells of it
                self._news.put(News("record", api.get(self._id)))
            time.sleep(_LOOK)

    # --- what is shown

    @contextmanager
    def _status(self) -> Iterator[Status | None]:
        """A line that moves, on a terminal."""
        if not self._console.is_terminal:
            yield None
            return
        with self._console.status(Text("waiting")) as status:
            yield status

    def _tell(self, text: str, style: str = "") -> None:
        self._console.print(Text(shown(text, sys.stderr), style))

    def _line(self, line: Json) -> None:
        self._tell(f"{line['step']} | {line['line']}", "yellow" if line["stream"] == "stderr" else "")

    def _progress(self, record: Json, status: Status | None) -> None:
        for number, step in enumerate(record["steps"], 1):
            if self._states.get(number) != step["state"] and step["state"] in ("complete", "error"):
                self._states[number] = step["state"]
                self._tell(ended(number, step), "green" if step["state"] == "complete" else "red")
        if status is not None:
            status.update(Text(shown(now(record), sys.stderr)))

    def _interrupted(self) -> None:
        self._interrupts += 1
        always = self._interrupts == _PATIENCE
        self._tell(
            "cancelling steps that always run too; Ctrl-C once more leaves them"
            if always
            else "cancelling the job; Ctrl-C again stops steps that always run too"
        )
        try:
            self._api.cancel(self._id, always)
        except (Refused, Unreachable) as error:
            self._tell(str(error))


def ended(number: int, step: Json) -> str:
    """`step 2 (uppercase): exit code 3, 1.5 s`."""
    code, facts = step["exitCode"], []
    if step["state"] == "error":
        facts.append("failed" if not code else f"exit code {code}")
    else:
        facts.append("complete")
    facts += [fact for fact in (show.took(show.seconds(step)), show.size(step["bytesOut"])) if fact]
    return f"step {number} ({step['name'] or step['source']}): {', '.join(facts)}"


def now(record: Json) -> str:
    """What the job is at."""
    count = len(record["steps"])
    for number, step in enumerate(record["steps"], 1):
        if step["state"] == "running":
            return f"step {number} of {count} ({step['name'] or step['source']})"
    return f"waiting, {record['stepsCompleted']} of {count} steps complete"


@contextmanager
def interrupts(news: SimpleQueue[News]) -> Iterator[None]:
    """Ctrl-C is news meanwhile, so that a job whose id is still under way is cancelled all the same. Often enough, it is KeyboardInterrupt."""
    patience = iter(range(_PATIENCE))

    def heard(*_: object) -> None:
        if next(patience, None) is None:
            raise KeyboardInterrupt
        news.put(News("interrupt"))

    before: Any = signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
