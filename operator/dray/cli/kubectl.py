"""`kubectl dray`: the log and the output of a DrayJob, by its name. kubectl finds it as the program `kubectl-dray` on PATH.

The object is asked for in the cluster, its job at Dray's API: DRAY_SERVER says where that is, DRAY_TOKEN is sent to it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import requests

from dray.cluster import Absent, Refused, cluster
from dray.crd.drayjob import collection
from dray.errors import BadSetting, Unavailable

_TIMEOUTS = (5, 60)  # seconds to connect, and without a byte: a followed log has one every 15


class Failed(Exception):
    """What is told to the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 not."""
    given = _parser().parse_args(argv)
    try:
        job_id = _job_id(given.name, given.namespace)
        if given.command == "logs":
            for line in _followed(job_id) if given.follow else _lines(job_id):
                print(line, flush=given.follow)
        else:
            with _ask(f"/jobs/{job_id}/output") as answer:
                shutil.copyfileobj(answer.raw, sys.stdout.buffer)
    except (Failed, BadSetting, Unavailable, requests.RequestException) as error:
        print(f"kubectl dray: {error}", file=sys.stderr)
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kubectl dray", description="What a DrayJob wrote. DRAY_SERVER names Dray's API (http://127.0.0.1:3000).")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    logs = commands.add_parser("logs", help="the lines that its steps wrote")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    output = commands.add_parser("output", help="the output of its last step, as it is")
    for command in (logs, output):
        command.add_argument("name", metavar="NAME", help="of the DrayJob")
        command.add_argument("-n", "--namespace", help="its namespace (the context's)")
    return parser


def _job_id(name: str, namespace: str | None) -> str:
    where = namespace or cluster().namespace
    try:
        found = cluster().get(f"{collection(where)}/{name}")
    except Absent:
        raise Failed(f"there is no DrayJob {name} in namespace {where}") from None
    except Refused as error:
        raise Failed(str(error)) from None
    job_id = found.get("status", {}).get("jobID")
    if job_id is None:
        raise Failed(f"DrayJob {name} has no job yet: kubectl describe drayjob {name} -n {where} says why")
    return str(job_id)


def _ask(path: str, accept: str = "*/*") -> requests.Response:
    token = os.environ.get("DRAY_TOKEN")
    headers = {"Accept": accept} | ({"Authorization": f"Bearer {token}"} if token else {})
    url = os.environ.get("DRAY_SERVER") or "http://127.0.0.1:3000"
    answer = requests.get(url.rstrip("/") + path, headers=headers, stream=True, timeout=_TIMEOUTS)
    if not answer.ok:
        raise Failed(f"{url} answers {answer.status_code}: {_detail(answer)}")
    return answer


def _detail(answer: requests.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, LookupError, TypeError):
        return answer.reason


def _lines(job_id: str) -> Iterator[str]:
    with _ask(f"/jobs/{job_id}/log") as answer:
        yield from answer.json()["lines"]


def _followed(job_id: str) -> Iterator[str]:
    with _ask(f"/jobs/{job_id}/log", "text/event-stream") as answer:
        event = "message"
        for raw in answer.iter_lines(chunk_size=None):
            field, _, value = raw.decode().partition(": ")
            if field == "event":
                event = value
                if event in ("end", "deleted"):
                    return
            elif field == "data" and event == "message":
                told: dict[str, Any] = json.loads(value)
                yield told["line"]
            elif not field:
                event = "message"
