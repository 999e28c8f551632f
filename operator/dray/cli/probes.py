"""What `dray operator` answers over HTTP where `--metrics-port` is given: metrics, and whether it is alive and ready."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dray.errors import DrayError, Unavailable
from dray.settings import Settings
from dray_api import problems
from dray_api.guard import Guard
from dray_api.layers import Watch

_READY_WITHIN = 5.0  # seconds


class Part(Protocol):
    """Of an operator: its loop, or what deals with DrayJobs."""

    @property
    def alive(self) -> bool:
        """Whether it does what it is there for, as far as that depends on itself."""
        ...

    async def ready(self) -> None:
        """Raises Unavailable, naming what is not."""
        ...


def create_app(settings: Settings, parts: Sequence[Part]) -> Starlette:
    """With the API's guard: who may ask the one may ask the other."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        if not all(part.alive for part in parts):
            raise Unavailable("the operator has not looked at its jobs for some minutes, or is not told of changed DrayJobs")
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        try:
            async with asyncio.timeout(_READY_WITHIN):
                for part in parts:
                    await part.ready()
        except TimeoutError:
            raise Unavailable(f"Redis, the engine or the cluster does not answer within {_READY_WITHIN:.0f} seconds") from None
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[Route(f"/{endpoint.__name__}", endpoint) for endpoint in (metrics, healthz, readyz)],
        middleware=[Middleware(Watch), Middleware(Guard, settings=settings)],
        exception_handlers={DrayError: problems.of_dray, HTTPException: problems.of_framework},
    )
