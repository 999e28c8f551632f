"""Dray's API as the verbs use it: one method for each request, answers decoded, failures as Failed."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import requests

from dray.client.config import Connection
from dray.client.errors import Failed, Refused, Unreachable

_TIMEOUTS = (5, 60)  # seconds to connect, and without a byte: a followed log has one every 15
_BLOCK = 2**16  # bytes
_HEADER = 60_000  # characters: the server takes little more
_PAGE = 1000  # jobs
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
Json = dict[str, Any]


class Api:
    def __init__(self, connection: Connection) -> None:
        self._server, self._token = connection.server, connection.token
        self._session = requests.Session()
        self._session.trust_env = not is_local(connection.server)  # no proxy leads to this machine
        self._session.auth = self._authorized  # also keeps requests from looking into ~/.netrc

    # --- jobs

    def create(self, job: bytes) -> Json:
        return self._made("/jobs", job)

    def filter(self, job: bytes, begun: bytes, rest: Iterator[bytes] | None) -> Json:
        """A job with an input: `begun`, and `rest` where there is more. Raises Failed where the job does not go into a header."""
        path, headers = "/filter", {"Dray-Job": _on_a_line(job)}
        if rest is None:
            return self._made(path, begun, {"wait": "false"}, headers)
        content = chain((begun,), rest)
        return self._json("POST", path, ("id",), data=content, params={"wait": "false"}, headers=headers)

    def rerun(self, job_id: str, first: int | None) -> Json:
        return self._made(_path(job_id, "/rerun"), params={} if first is None else {"from": first})

    def get(self, job_id: str) -> Json:
        return self._json("GET", _path(job_id), ("id", "status", "steps"))

    def spec(self, job_id: str) -> Json:
        """As it was posted."""
        return self._json("GET", _path(job_id, "/spec"), ("id", "steps"))

    def cancel(self, job_id: str, always: bool = False) -> Json:
        return self._json("POST", _path(job_id, "/cancel"), ("status",), params={"always": "true"} if always else {})

    def remove(self, job_id: str) -> None:
        with self._ask("DELETE", _path(job_id)):
            pass

    def page(self, filters: Mapping[str, str | Sequence[str]], limit: int) -> tuple[list[Json], bool]:
        """At most `limit` jobs; whether there are more."""
        path, params, found = "/jobs", {**filters, "limit": str(min(limit, _PAGE))}, list[Json]()
        while True:
            with self._ask("GET", path, params=params) as answer:
                jobs = _decoded(answer)
                if not isinstance(jobs, list) or not all(isinstance(job, dict) and "id" in job for job in jobs):
                    raise _foreign(answer)
                found += jobs
                following = answer.links.get("next", {}).get("url")
            if following is None or len(found) >= limit:
                return found[:limit], len(found) > limit or following is not None
            path, params = following, {}

    # --- what they wrote

    def lines(self, job_id: str) -> list[str]:
        lines: list[str] = self._json("GET", _path(job_id, "/log"), ("lines",))["lines"]
        return lines

    @contextmanager
    def events(self, job_id: str, index: int) -> Iterator[Iterator[tuple[str, str]]]:
        """(event, data) from line `index` of the log on. Raises Unreachable where they break off."""
        with self._ask("GET", _path(job_id, "/log"), params={"index": index}, headers={"Accept": "text/event-stream"}) as answer:
            yield _events(answer)

    def output(self, job_id: str, step: int | None) -> Iterator[bytes]:
        """Raises Unreachable where it breaks off."""
        return self._octets(_path(job_id, "/output" if step is None else f"/steps/{step}/output"))

    def input(self, job_id: str) -> Iterator[bytes]:
        """The same of what came with the job."""
        return self._octets(_path(job_id, "/input"))

    def kept(self, job_id: str, step: int | None) -> bool:
        """Whether there is the output of a step, or (None) the job's input."""
        try:
            with self._ask("HEAD", _path(job_id, "/input" if step is None else f"/steps/{step}/output")):
                return True
        except Refused as error:
            if error.status == requests.codes.not_found:
                return False
            raise

    def health(self) -> Json:
        """That the server is alive; it takes no token for this."""
        return self._json("GET", "/healthz", ("status",))

    def ready(self) -> Json:
        """That all it stands on answers. Raises Failed, naming what does not."""
        return self._json("GET", "/readyz", ("status",))

    # --- requests

    def _octets(self, path: str) -> Iterator[bytes]:
        with self._ask("GET", path) as answer:
            yield from answer.iter_content(_BLOCK)

    def _made(self, path: str, content: bytes = b"", params: Mapping[str, int | str] | None = None, more: Mapping[str, str] | None = None) -> Json:
        """Asked once more where the answer is lost: under one key there is one job. `more`: headers."""
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "application/json"} | dict(more or {})
        try:
            return self._json("POST", path, ("id",), data=content, params=params or {}, headers=headers)
        except Unreachable:
            return self._json("POST", path, ("id",), data=content, params=params or {}, headers=headers)

    def _json(self, method: str, path: str, fields: Sequence[str], **given: Any) -> Json:
        """An object that has these fields at least."""
        with self._ask(method, path, **given) as answer:
            found: Json = _decoded(answer)
            if not isinstance(found, dict) or not found.keys() >= set(fields):
                raise _foreign(answer)
            return found

    @contextmanager
    def _ask(self, method: str, path: str, **given: Any) -> Iterator[requests.Response]:
        headers = {"Accept-Encoding": "identity"} | given.pop("headers", {})
        try:
            asked = self._session.request(method, self._server + path, headers=headers, stream=True, timeout=_TIMEOUTS, allow_redirects=False, **given)
            with asked as answer:
                if not 200 <= answer.status_code < 300:
                    raise _refusal(answer, self._server)
                yield answer
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise Unreachable(f"{self._server} does not answer: {cause(error)}") from None
        except requests.RequestException as error:
            raise Failed(f"{self._server}: {error}") from None

    def _authorized(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _path(job_id: str, rest: str = "") -> str:
    if not _ID.fullmatch(job_id):
        raise Failed(f"{job_id!r} is no job's id")
    return f"/jobs/{job_id}{rest}"


def _on_a_line(job: bytes) -> str:
    line = json.dumps(json.loads(job), separators=(",", ":"))
    if len(line) > _HEADER:
        raise Failed(f"a job with an input may have {_HEADER} characters of JSON at most, this one has {len(line)}")
    return line


def _decoded(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except requests.exceptions.JSONDecodeError:
        raise _foreign(answer) from None


def _foreign(answer: requests.Response) -> Failed:
    return Failed(f"{answer.url} answers {answer.status_code}, but not as a Dray does")


def _refusal(answer: requests.Response, server: str) -> Refused:
    """The problem document's words, or that there is none."""
    try:
        problem = answer.json()
        errors = [f"{error['field'] or 'body'}: {error['message']}" for error in problem.get("errors", [])]
        text = f"{problem['title']}:" if errors else str(problem["detail"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return Refused(answer.status_code, f"{server} answers {answer.status_code} {answer.reason}: is a Dray there?")
    if answer.status_code == requests.codes.unauthorized:
        text += " (DRAY_TOKEN, or token in the configuration file)"
    return Refused(answer.status_code, text, errors)


def cause(error: BaseException) -> str:
    """The innermost reason, without the library's wrappings."""
    while error.__context__ is not None or error.__cause__ is not None:
        error = error.__cause__ or error.__context__ or error
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def is_local(server: str) -> bool:
    """Whether its address is this machine's own."""
    host = urlsplit(server).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _events(answer: requests.Response) -> Iterator[tuple[str, str]]:
    event, data = "message", ""
    for raw in answer.iter_lines(chunk_size=None):
        field, _, value = raw.decode().partition(": ")
        if field == "event":
            event = value
        elif field == "data":
            data = value
        elif not raw:
            if data:
                yield event, data
            event, data = "message", ""
