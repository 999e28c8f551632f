"""The Docker engine: control calls by the SDK in a bounded pool of threads, streams by asyncio.

Errors: an engine that does not answer, or answers 5xx, is `Unavailable`; what it refuses (4xx) is the SDK's own
`docker.errors.APIError`, for the caller to tell by its status code.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote, urlsplit

import docker
import orjson
import requests
from docker.errors import APIError, DockerException
from docker.types import LogConfig
from docker.utils import kwargs_from_env

from dray.errors import BadSetting, Unavailable

P = ParamSpec("P")
R = TypeVar("R")
_CALLS = 8  # control calls at once
_TIMEOUT = 60  # seconds for one control call
_PULL_TIMEOUT = 900  # seconds without a word of progress in a pull
_API = "1.41"
_FOLDER = 1 << 31  # Go's os.ModeDir
NO_LOG = LogConfig(type="none")  # nothing is read from a container's own streams


class Faltering(Unavailable):
    """The engine answered, with a 5xx: it may pass, or be what it makes of this request every time."""


class Engine:
    """One engine, where DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say, as for the docker command."""

    def __init__(self) -> None:
        try:
            self.api = docker.APIClient(timeout=_TIMEOUT, max_pool_size=_CALLS, version=_API, **kwargs_from_env())
            self.pulls = docker.APIClient(timeout=_PULL_TIMEOUT, version=_API, **kwargs_from_env())
        except (DockerException, TypeError) as error:
            raise BadSetting(f"DOCKER_HOST: {error}") from None
        for client in (self.api, self.pulls):
            client.trust_env = False  # REQUESTS_CA_BUNDLE would take the place of DOCKER_CERT_PATH's ca.pem
        self._threads = ThreadPoolExecutor(_CALLS, "engine")

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """One control call in the pool."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))
        except APIError as error:
            if status_of(error) < 500:
                raise
            raise Faltering(f"engine: {error.explanation or error}") from error
        except (requests.exceptions.RequestException, DockerException, OSError) as error:
            raise Unavailable(f"engine: {error}") from error

    async def is_folder(self, container: str, path: str) -> bool:
        """Whether the container, not started yet, has a folder there."""
        url, params = f"{self.api.base_url}/v{_API}/containers/{container}/archive", {"path": path}
        answer = await self.call(self.api.head, url, params=params, timeout=_TIMEOUT)
        stat = orjson.loads(base64.b64decode(answer.headers.get("X-Docker-Container-Path-Stat", "e30=")))
        return bool(stat.get("mode", 0) & _FOLDER)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.api.close()
        self.pulls.close()

    async def stream(self, method: str, path: str, body: object = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A call whose answer is a stream: the two ends, after the answer's head. The caller closes the writer."""
        content = b"" if body is None else orjson.dumps(body)
        headers = {"Host": "docker", "Content-Type": "application/json", "Content-Length": len(content), "Connection": "Upgrade", "Upgrade": "tcp"}
        head = "\r\n".join([f"{method} /v{_API}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""])
        try:
            reader, writer = await self._connect()
        except OSError as error:
            raise Unavailable(f"engine: {error}") from error
        try:
            writer.write(head.encode() + content)
            answer = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise Unavailable(f"engine: {error}") from error
        if answer.split(b" ", 2)[1] not in (b"101", b"200"):
            writer.close()
            raise Unavailable(f"engine: {method} {path}: {answer.splitlines()[0].decode(errors='replace')}")
        return reader, writer

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        parts = urlsplit(host)
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(parts.path, limit=2**20)
        return await asyncio.open_connection(parts.hostname, parts.port or 2375, ssl=_tls_context(), limit=2**20)

    async def events(self, filters: dict[str, list[str]]) -> AsyncIterator[dict[str, Any]]:
        """The engine's events that match, as they come; the first is {} once listening has begun. Ends in Unavailable."""
        query = quote(orjson.dumps(filters).decode())
        reader, writer = await self.stream("GET", f"/events?filters={query}")
        try:
            yield {}
            while True:
                size = int((await reader.readuntil(b"\r\n"))[:-2] or b"0", 16)  # chunked transfer encoding
                chunk = await reader.readexactly(size + 2)
                for line in chunk.splitlines():
                    if line.strip():
                        yield orjson.loads(line)
                if size == 0:
                    raise Unavailable("engine: its events ended")
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            raise Unavailable(f"engine: {error}") from error
        finally:
            await settle(writer)


def status_of(error: APIError) -> int:
    return int(error.response.status_code) if error.response is not None else 0


async def settle(writer: asyncio.StreamWriter) -> None:
    """Close a stream and wait until it is closed."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _tls_context() -> ssl.SSLContext | None:
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return None
    folder = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")  # noqa: PTH111 (as the SDK has it)
    context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))  # noqa: PTH118
    context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))  # noqa: PTH118
    return context
