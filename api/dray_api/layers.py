"""Small ASGI layers around the routes: `/v<number>`, what is noted of each request, and what happens to the unforeseen."""

from __future__ import annotations

import logging
import re
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dray.errors import DrayError
from dray_api import metrics, problems

log = logging.getLogger(__name__)
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE"})
_VERSIONED = re.compile(r"/v[0-9]+(/.*)")


class Paths:
    """Every route is also there under `/v<number>`; none has a line break, which the router would overlook at a path's end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if "\n" in path:
                await problems.no_route()(scope, receive, send)
                return
            found = _VERSIONED.fullmatch(path)
            if found:
                scope["path"] = found[1]
        await self._app(scope, receive, send)


class Watch:
    """One debug line and the metrics of each request.

    An exception nobody foresaw is logged: before an answer it becomes a 500, after its start the connection ends.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            log.debug("the client went away")
        except Exception as error:
            if status and isinstance(error.__cause__, DrayError):
                log.warning("%s %s broke off: %s", scope["method"], _target(scope), error.__cause__)
            else:
                log.exception("%s %s failed", scope["method"], _target(scope))
            if not status:
                await problems.internal()(scope, receive, noting)
        seconds = time.perf_counter() - began
        metrics.observe(*_kind(scope), status, seconds)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s %s %d in %.1f ms", scope["method"], _target(scope), status, 1000 * seconds)


def _kind(scope: Scope) -> tuple[str, str]:
    """Method and route, as far as there are such: a client's own words would make metrics without end."""
    route = scope.get("route")
    method = scope["method"]
    return method if method in _METHODS else "other", route.path if route is not None else "none"


def _target(scope: Scope) -> str:
    """The path as it was sent, without the query: it cannot break a log line."""
    raw: bytes = scope["raw_path"]
    return raw[:200].decode("ascii", "backslashreplace")
