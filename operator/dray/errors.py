"""Every error that crosses a module's border, each with the HTTP status it means to a client.

A step that failed is not here: that is data in the record (`reason.Reason`). These are refusals of a request and
failures of what Dray stands on (Redis, the engine, the output store).
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """One fault in a request: which field (`steps[0].source`; empty for the whole body) and what would be right."""

    field: str
    message: str


class DrayError(Exception):
    """The root. `status` and `title` become the problem document's; the exception's text its detail."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    title: ClassVar[str] = "Internal error"


class Malformed(DrayError):
    """The body is not JSON; the text says what is wrong and where."""

    status = HTTPStatus.BAD_REQUEST
    title = "Malformed request"


class Invalid(DrayError):
    """The body is JSON but no job; `errors` names each field."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "Invalid request"

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field or 'body'}: {error.message}" for error in errors))
        self.errors = errors


class TooLarge(DrayError):
    """The request is over a documented limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "Request too large"


class Unauthorized(DrayError):
    """No bearer token, or not the right one."""

    status = HTTPStatus.UNAUTHORIZED
    title = "Unauthorized"


class Foreign(DrayError):
    """A `Host` or `Origin` that is not this server's: another site's page speaking through a browser."""

    status = HTTPStatus.FORBIDDEN
    title = "Foreign request"


class NotFound(DrayError):
    """No such job, or no such thing of the job."""

    status = HTTPStatus.NOT_FOUND
    title = "Not found"


class NotFinished(DrayError):
    """The job has no output: it is still running, or it failed."""

    status = HTTPStatus.CONFLICT
    title = "No output"


class Finished(DrayError):
    """The job has ended: there is nothing left to cancel or to hold."""

    status = HTTPStatus.CONFLICT
    title = "Finished"


class NotKept(DrayError):
    """The output from which a rerun would go on is not kept."""

    status = HTTPStatus.CONFLICT
    title = "Not kept"


class KeyReused(DrayError):
    """The Idempotency-Key came before, with another request."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "Idempotency-Key used before"


class Unavailable(DrayError):
    """Something Dray stands on does not answer, now. Says nothing about any job: back off and ask again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Unavailable"


class Full(Unavailable):
    """The output store has no room, now."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    title = "Insufficient storage"


class Stale(DrayError):
    """The record changed since it was read: read it again and decide anew."""

    status = HTTPStatus.CONFLICT
    title = "Changed meanwhile"


class BadSetting(DrayError):
    """An option or environment variable that cannot be used; the text names it and says what would be right."""
