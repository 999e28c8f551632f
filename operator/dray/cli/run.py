"""What `dray serve`, `dray api` and `dray operator` wire together and run until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop

from dray import traces
from dray.embedded import RedisServer
from dray.errors import BadSetting
from dray.identity import operator_name
from dray.loop import Loop
from dray.outputs import Outputs
from dray.settings import Runs, Settings
from dray.store import Store

if TYPE_CHECKING:
    from types import ModuleType

    from dray.backends import Backend
    from dray.crd.operator import DrayJobs

log = logging.getLogger(__name__)


def run(command: str, settings: Settings) -> int:
    """Raises BadSetting."""
    with traces.exporting(os.environ):
        uvloop.run({"serve": _serve, "api": _api, "operator": _operator}[command](settings))
    return 0


async def _serve(settings: Settings) -> None:
    with _listener(settings, settings.port, "--port") as listener:
        loading = asyncio.create_task(asyncio.to_thread(_http))  # while Redis reads its data
        async with _redis(settings) as complete, _store(complete) as store:
            http, backend, outputs = await loading, _backend(complete), Outputs(complete.outputs_url)

            with operator_name(complete.data_dir, complete.backend) as name:
                loop, drayjobs = Loop(name, complete, store, backend, outputs), _drayjobs(name, complete, store)

                async def ready() -> None:
                    await store.ping()
                    await backend.ping()
                    for part in drayjobs:
                        await part.ready()

                api = partial(http.answer, http.create_app(complete, store, outputs, ready), listener)
                await _until_told(api, partial(_operate, loop, [part.run for part in drayjobs]))


async def _api(settings: Settings) -> None:
    with _listener(settings, settings.port, "--port") as listener:
        async with _store(_with_redis_url(settings)) as store:
            http = _http()
            app = http.create_app(settings, store, Outputs(settings.outputs_url), store.ping)
            await _until_told(partial(http.answer, app, listener))


async def _operator(settings: Settings) -> None:
    async with _store(_with_redis_url(settings)) as store:
        with _probes_listener(settings) as listener, operator_name(settings.data_dir, settings.backend) as name:
            loop = Loop(name, settings, store, _backend(settings), Outputs(settings.outputs_url))
            drayjobs = _drayjobs(name, settings, store)
            beside: list[Work] = [part.run for part in drayjobs]
            if listener is not None:
                http = _http()
                beside.append(partial(http.listen, http.probes.create_app(settings, (loop, *drayjobs)), listener))
            await _until_told(partial(_operate, loop, beside))


async def _operate(loop: Loop, beside: Sequence[Work], told: asyncio.Event) -> None:
    """The loop, and until it has ended, the last jobs finished perhaps, what goes on beside it. One that fails ends all."""
    over = asyncio.Event()
    looping, others = asyncio.create_task(loop.run(told)), [asyncio.create_task(work(over)) for work in beside]
    await asyncio.wait([looping, *others], return_when=asyncio.FIRST_COMPLETED)
    told.set()
    try:
        await looping
    finally:
        over.set()
        await asyncio.gather(*others)


# --- parts


def _http() -> ModuleType:
    """What answers over HTTP: a third of all there is to load."""
    from dray.cli import http  # noqa: PLC0415

    return http


def _backend(settings: Settings) -> Backend:
    """What jobs run on, and no more loaded than that needs. Raises BadSetting."""
    if settings.backend is Runs.KUBERNETES:
        from dray.backends.kubernetes import KubernetesBackend  # noqa: PLC0415

        return KubernetesBackend(settings)
    from dray.backends.docker import DockerBackend  # noqa: PLC0415

    return DockerBackend(settings)


def _drayjobs(name: str, settings: Settings, store: Store) -> tuple[DrayJobs, ...]:
    """One, or none. Raises BadSetting where there is no cluster to be found."""
    if not settings.kubernetes:
        return ()
    from dray.crd.operator import DrayJobs  # noqa: PLC0415 (a second's work, that only this takes)

    return (DrayJobs(name, settings, store),)


@contextlib.contextmanager
def _listener(settings: Settings, port: int, option: str) -> Iterator[socket.socket]:
    """Bound before anything is started, so that a port in use is told at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, port))
        except OSError as error:
            raise BadSetting(f"--host {settings.host} {option} {port}: {error.strerror or error}") from None
        yield listener


def _probes_listener(settings: Settings) -> contextlib.AbstractContextManager[socket.socket | None]:
    if settings.metrics_port is None:
        return contextlib.nullcontext()
    return _listener(settings, settings.metrics_port, "--metrics-port")


@contextlib.asynccontextmanager
async def _redis(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with a Redis to use: the one they name, or one of our own."""
    if settings.redis_url is not None:
        yield settings
        return
    async with RedisServer(settings.data_dir) as server:
        yield replace(settings, redis_url=server.url)


@contextlib.asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[Store]:
    assert settings.redis_url is not None  # _redis, _with_redis_url
    store = Store(settings.redis_url)
    try:
        yield store
    finally:
        await store.close()


def _with_redis_url(settings: Settings) -> Settings:
    if settings.redis_url is None:
        raise BadSetting("REDIS_URL is not set: it must name the Redis that API and operator share, such as redis://host:6379 (`dray serve` brings its own)")
    return settings


Work = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Runs until the event is set."""


async def _until_told(*works: Work) -> None:
    """Run all until SIGTERM or SIGINT, or until one fails; then the others are told, and the failure is raised."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    tasks = [asyncio.create_task(work(told)) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    log.info("stopping")
    told.set()
    for failure in await asyncio.gather(*tasks, return_exceptions=True):
        if failure is not None:
            raise failure
