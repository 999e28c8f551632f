"""The app: routes, layers and error answers put together. Called by `dray serve` and `dray api`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from importlib.metadata import version
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from dray.errors import DrayError
from dray.outputs import Outputs
from dray.settings import Settings
from dray.store import Store
from dray_api import openapi, page, problems
from dray_api.follow import Followers
from dray_api.guard import Guard
from dray_api.layers import Paths, Watch
from dray_api.operations import OPERATIONS
from dray_api.routes import Parts, Routes

_DESCRIPTION = "Runs jobs made of container steps: the output of each is the input of the next."
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}  # looked for anew at each request; ours: metrics.py
_NO_SCRIPTS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def create_app(settings: Settings, store: Store, outputs: Outputs, ready: Callable[[], Awaitable[None]]) -> FastAPI:
    """`ready` raises Unavailable, naming what does not answer.

    The app opens and closes nothing: store and outputs are the caller's. `app.state.followers` are to be closed before
    the server waits for its answers to end.
    """
    app = FastAPI(
        title="Dray",
        description=_DESCRIPTION,
        version=version("dray"),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.router.route_class = _Route
    app.state.followers = Followers(store)
    _add_routes(app, Routes(Parts(settings, store, outputs, ready, app.state.followers)))
    _add_documents(app)
    app.add_exception_handler(DrayError, problems.of_dray)
    app.add_exception_handler(HTTPException, problems.of_framework)
    for layer, options in ((Guard, {"settings": settings}), (Paths, {}), (Watch, {})):  # the last is outermost
        app.add_middleware(layer, **options)
    return app


class _Route(APIRoute):
    """Hands the request to the endpoint as it is: what FastAPI would take from it for the endpoint's parameters costs more than most answers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


class _ForPeople(_Route):
    """There for those who ask for HTML alone; for all others there is no such route."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if page.wanted(scope) else (Match.NONE, {})


def _add_routes(app: FastAPI, routes: Routes) -> None:
    for method, path, endpoint in (
        ("POST", "/jobs", routes.create),
        ("POST", "/filter", routes.filter),
        ("GET", "/jobs", routes.listing),
        ("GET", "/jobs/{id}", routes.show),
        ("GET", "/jobs/{id}/spec", routes.spec),
        ("GET", "/jobs/{id}/input", routes.input),
        ("GET", "/jobs/{id}/log", routes.log),
        ("GET", "/jobs/{id}/output", routes.output),
        ("GET", "/jobs/{id}/steps/{step}/output", routes.step_output),
        ("POST", "/jobs/{id}/cancel", routes.cancel),
        ("POST", "/jobs/{id}/rerun", routes.rerun),
        ("DELETE", "/jobs/{id}", routes.delete),
        ("GET", "/healthz", routes.healthz),
        ("GET", "/readyz", routes.readyz),
        ("GET", "/metrics", routes.metrics),
    ):
        described = OPERATIONS[endpoint.__name__]
        success = min(described["responses"])
        app.add_api_route(path, endpoint, methods=[method], status_code=success, response_class=Response, operation_id=endpoint.__name__, **described)
        if method == "GET":
            app.add_api_route(path, endpoint, methods=["HEAD"], response_class=Response, include_in_schema=False)


def _add_documents(app: FastAPI) -> None:
    @cache
    def document() -> dict[str, Any]:
        return openapi.document(app)

    async def as_json(_: Request) -> Response:
        return Response(orjson.dumps(document()), media_type="application/json")

    async def as_page(_: Request) -> Response:
        return HTMLResponse(openapi.page(document()), headers=_NO_SCRIPTS)

    app.add_api_route("/openapi.json", as_json, methods=["GET", "HEAD"], response_class=Response, include_in_schema=False)
    app.add_api_route("/docs", as_page, methods=["GET", "HEAD"], response_class=Response, include_in_schema=False)
    for path, endpoint in page.routes():
        kind = _ForPeople if path == "/" else None
        app.router.add_api_route(path, endpoint, methods=["GET", "HEAD"], response_class=Response, include_in_schema=False, route_class_override=kind)
