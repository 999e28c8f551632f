"""RFC 9457 problem documents: the one shape of every error answer."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dray.errors import DrayError, Invalid, TooLarge, Unauthorized, Unavailable

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 1  # seconds

_HEADERS: Mapping[type[DrayError], Mapping[str, str]] = {
    Unauthorized: {"WWW-Authenticate": "Bearer"},
    Unavailable: {"Retry-After": str(RETRY_AFTER)},
    TooLarge: {"Connection": "close"},  # what is left of the request is not read
}


def problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, **members: object) -> Response:
    document: dict[str, object] = {"type": "about:blank", "title": title, "status": int(status), "detail": detail, **members}
    return Response(orjson.dumps(document), int(status), headers, MEDIA_TYPE)


def of(error: DrayError) -> Response:
    """The document of an error of ours."""
    members = {"errors": [{"field": each.field, "message": each.message} for each in error.errors]} if isinstance(error, Invalid) else {}
    return problem(error.status, error.title, str(error), _HEADERS.get(type(error)), **members)


def internal() -> Response:
    """Of an error nobody foresaw: what it was is in the log only."""
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error", "an internal error; the server's log has the details")


def no_route() -> Response:
    return problem(404, "Not found", "there is no such route: /openapi.json lists what there is")


async def of_dray(_: Request, error: Exception) -> Response:
    assert isinstance(error, DrayError)
    return of(error)


async def of_framework(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return no_route()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(sorted(_methods(request)))
        return problem(405, "Method not allowed", f"this route takes {allowed}", headers={"Allow": allowed})
    return problem(error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail), headers=error.headers)


def _methods(request: Request) -> set[str]:
    """Of every route that has the request's path."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {method for route in routes if route.path_regex.match(request.scope["path"]) for method in route.methods or ()}
