"""Answering over HTTP, for `run.py`: the API, or the probes of an operator alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from dray.cli import probes
from dray_api.app import create_app
from dray_api.protocol import Protocol

__all__ = ["answer", "create_app", "listen", "probes"]

log = logging.getLogger(__name__)
_SHUTDOWN_WITHIN = 5  # seconds for requests under way


class Server(uvicorn.Server):
    """uvicorn, leaving the signals to us: Redis must stop after it, in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def answer(app: FastAPI, listener: socket.socket, told: asyncio.Event) -> None:
    """The API: who follows a log is let go first."""
    over = asyncio.Event()
    listening = asyncio.create_task(listen(app, listener, over))
    await told.wait()
    await app.state.followers.close()
    over.set()
    await listening


async def listen(app: ASGIApp, listener: socket.socket, told: asyncio.Event) -> None:
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=_SHUTDOWN_WITHIN,
    )
    server = Server(config)
    host, port = listener.getsockname()[:2]
    log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await told.wait()
    server.should_exit = True
    await serving
