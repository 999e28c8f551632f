"""A client of any server with Dray's contract, on one connection that is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

POLL = 0.005  # seconds between two looks at a job
POLL_MANY = 0.02  # the same where many jobs run: looking costs the server


class Server:
    """Raises AssertionError for an answer that is not the contract's."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str) -> Any:
        return self._answer("GET", path, None, 200)

    def post(self, images: Sequence[str]) -> str:
        job = {"steps": [{"source": image} for image in images]}
        return str(self._answer("POST", "/jobs", json.dumps(job), 201)["id"])

    def ended(self, job_id: str) -> bool:
        """Raises AssertionError for a job that failed."""
        record = self.get(f"/jobs/{job_id}")
        assert record["status"] != "error", record
        return bool(record["status"] == "complete")

    def delete(self, job_id: str) -> None:
        self._answer("DELETE", f"/jobs/{job_id}", None, 204)

    def run(self, images: Sequence[str], within: float = 120) -> str:
        """The id of a job posted and seen complete."""
        job_id, deadline = self.post(images), time.monotonic() + within
        while not self.ended(job_id):
            assert time.monotonic() < deadline, f"job {job_id} still running after {within} s"
            time.sleep(POLL)
        return job_id

    def run_many(self, images: Sequence[str], jobs: int, at_a_time: int) -> None:
        """So many equal jobs, until all are seen complete; `at_a_time` are posted and not yet seen complete."""
        left, running = jobs, list[str]()
        while left or running:
            while left and len(running) < at_a_time:
                running.append(self.post(images))
                left -= 1
            # Once all are posted, the oldest alone is looked at: all have to end.
            ended = {job_id for job_id in (running if left else running[:1]) if self.ended(job_id)}
            running = [job_id for job_id in running if job_id not in ended]
            if not ended:
                time.sleep(POLL_MANY)

    def _answer(self, method: str, path: str, body: str | None, expected: int) -> Any:
        try:
            status, answer = self._asked(method, path, body)
        except (HTTPException, ConnectionError):  # a server may close a connection that was idle
            self._connection.close()
            status, answer = self._asked(method, path, body)
        assert status == expected, f"{method} {path}: {status} {answer[:500]!r}"
        return json.loads(answer) if answer else None

    def _asked(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        self._connection.request(method, path, body)
        response = self._connection.getresponse()
        return response.status, response.read()
