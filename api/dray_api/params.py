"""What clients say beside the body: in the path, the query and the headers. Raises Invalid, naming it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import Request

from dray import fields
from dray.errors import FieldError, Invalid, Malformed, NotFound
from dray.record import Phase
from dray.spec import JobSpec
from dray.store import Filter, IdempotencyKey
from dray_api import jobs

_FAR = 2**60  # further than any line, job or step
_STATUSES = (Phase.RUNNING, Phase.COMPLETE, Phase.ERROR)
_LISTING = ("limit", "cursor", "status", "name", "label", "order")
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_SHORT = 128  # bytes of a query
MAX_PAGE = 1000  # jobs
_PAGE = 100


class Listing(NamedTuple):
    """Which jobs are asked for."""

    wanted: Filter
    cursor: int | None
    limit: int
    newest: bool


def job_id(request: Request) -> str:
    """Raises NotFound where no job could be called so."""
    found: str = request.path_params["id"]
    if not jobs.may_be_id(found):
        raise NotFound("there is no such job")
    return found


@lru_cache(1024)
def _parsed(query: bytes) -> QueryParams:
    return QueryParams(query)


def query(request: Request) -> QueryParams:
    """Parsed once where it comes again and again, as of who polls."""
    raw: bytes = request.scope["query_string"]
    return _parsed(raw) if len(raw) <= _SHORT else QueryParams(raw)


def header(request: Request, name: bytes) -> list[bytes]:
    """What is given under it, in lower case. The framework decodes all others too."""
    return [value for key, value in request.scope["headers"] if key == name]


def wants_events(request: Request) -> bool:
    return any(b"text/event-stream" in given.lower() for given in header(request, b"accept"))


def index_of(text: str | None) -> int:
    """The line that `?index=` names. What is no whole number is 0, as the original has it."""
    found = re.fullmatch(r"([+-]?)0*([0-9]+)", text or "")
    if found is None:
        return 0
    size = int(found[2]) if len(found[2]) <= 18 else _FAR
    return -size if found[1] == "-" else size


def limit_of(text: str | None) -> int | None:
    """How many lines `?limit=` asks for; None: all."""
    return None if text is None else _count("limit", text)


def resumed_at(request: Request) -> int:
    """The line from which to follow: after the one that the client saw last, else the one that `?index=` names."""
    last = header(request, b"last-event-id")
    if last and re.fullmatch(rb"[0-9]{1,18}", last[0]):
        return int(last[0]) + 1
    return index_of(query(request).get("index"))


def listing(request: Request) -> Listing | None:
    """None: all jobs are asked for, as the original lists them."""
    given = query(request)
    if not any(name in given for name in _LISTING):
        return None
    cursor = given.get("cursor")
    limit = _count("limit", given["limit"]) if "limit" in given else _PAGE
    if limit > MAX_PAGE:
        raise _invalid("limit", f"must be at most {MAX_PAGE}")
    if cursor is not None and not re.fullmatch(r"[0-9]{1,15}", cursor):
        raise _invalid("cursor", "must be the one of a Link header")
    newest = _one_of("order", given.get("order", "oldest"), ("oldest", "newest")) == "newest"
    return Listing(_filter(request), None if cursor is None else int(cursor), limit, newest)


def _filter(request: Request) -> Filter:
    given = query(request)
    status = Phase(_one_of("status", given["status"], _STATUSES)) if "status" in given else None
    name, labels = given.get("name"), tuple(given.getlist("label"))
    if name is not None and not 0 < len(name) <= fields.MAX_NAME:
        raise _invalid("name", f"must be 1 to {fields.MAX_NAME} characters")
    if len(labels) > fields.MAX_LABELS or any(not label or label.startswith("=") for label in labels):
        raise _invalid("label", f"must be KEY or KEY=VALUE, at most {fields.MAX_LABELS} of them")
    return Filter(status, name, labels)


def flag(request: Request, name: str, default: str = "false") -> bool:
    """`?name=true`."""
    return _one_of(name, query(request).get(name, default), ("true", "false")) == "true"


class Wanted:
    """How a new job is asked for: under which key, whether to look first. `what`: by which route."""

    def __init__(self, request: Request, what: str) -> None:
        self.key, self.preflight = idempotency_key(request), flag(request, "preflight")
        self._what = what

    def asked(self, wanted: JobSpec) -> IdempotencyKey | None:
        """The request as a whole, but for a body that is an input."""
        request = (self._what, str(self.preflight), wanted.model_dump_json(exclude_unset=True))
        return None if self.key is None else IdempotencyKey.of(self.key, *request)


def job(request: Request) -> bytes:
    """What the header Dray-Job has: JSON, in ASCII or UTF-8. Raises Malformed."""
    given = header(request, b"dray-job")
    if len(given) != 1:
        raise Malformed(f"exactly one Dray-Job header is needed, with the job in JSON; there are {len(given)}")
    return given[0]


def length(request: Request) -> int | None:
    """Of the body, where that is said beforehand."""
    found = next(iter(header(request, b"content-length")), b"")
    return min(int(found[:19]), _FAR) if found.isdigit() else None


def first_step(request: Request, steps: int) -> int:
    """The step that `?from=` names, counted from 0 here and from 1 by the client; the first where it is not given."""
    text = query(request).get("from", "1")
    if not re.fullmatch(r"[0-9]+", text) or not 1 <= index_of(text) <= steps:
        raise _invalid("from", f"must be one of the steps 1 to {steps}; steps marked always run anyway")
    return index_of(text) - 1


def step(request: Request, steps: int) -> int:
    """The step that the path names, counted as above. Raises NotFound."""
    text: str = request.path_params["step"]
    if not re.fullmatch(r"[0-9]+", text, re.ASCII) or not 1 <= index_of(text) <= steps:
        raise NotFound(f"the job has the steps 1 to {steps}")
    return index_of(text) - 1


def idempotency_key(request: Request) -> str | None:
    given = header(request, b"idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise _invalid("Idempotency-Key", "must be one header of 1 to 255 printable ASCII characters without blanks")
    return given[0].decode()


def _count(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or not text.strip("0"):
        raise _invalid(name, "must be a whole number of at least 1")
    return index_of(text)


def _one_of(name: str, given: str, allowed: tuple[str, ...]) -> str:
    if given not in allowed:
        raise _invalid(name, f"must be {', '.join(allowed[:-1])} or {allowed[-1]}")
    return given


def _invalid(name: str, message: str) -> Invalid:
    return Invalid([FieldError(name, message)])
