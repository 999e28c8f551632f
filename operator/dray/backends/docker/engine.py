"""The Docker engine: its calls, and its events.

Errors: an engine that does not answer, or answers 5xx, is `Unavailable`; what it refuses (4xx) is `Refused`, for the
caller to tell by its status code, or `Unavailable` too where the caller says that it must be done.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlencode

import docker
import orjson
import requests
from docker.errors import APIError, DockerException
from docker.utils import kwargs_from_env

from dray.backends.docker.wire import Answer, Body, Connection, Wire, chunks, settle
from dray.errors import BadSetting, Unavailable

P = ParamSpec("P")
R = TypeVar("R")
_CALLS = 8  # at once
_TIMEOUT = 60  # seconds for one call
_PULL_TIMEOUT = 900  # seconds without a word of progress in a pull
_API = "1.41"
_FOLDER = 1 << 31  # Go's os.ModeDir
NO_LOG = {"Type": "none"}  # nothing is read from a container's own streams


class Faltering(Unavailable):
    """The engine answered, with a 5xx: it may pass, or be what it makes of this request every time."""


class Refused(Exception):
    """The engine's 4xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Missing(Refused):
    """404: there is no such thing, or something that it needs is not there."""


class Engine:
    """One engine, where DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say, as for the docker command."""

    def __init__(self) -> None:
        try:
            self.pulls = docker.APIClient(timeout=_PULL_TIMEOUT, version=_API, **kwargs_from_env())
            self._wire = Wire()
        except (DockerException, TypeError, OSError) as error:
            raise BadSetting(f"DOCKER_HOST: {error}") from None
        self.pulls.trust_env = False  # REQUESTS_CA_BUNDLE would take the place of DOCKER_CERT_PATH's ca.pem
        self._threads = ThreadPoolExecutor(_CALLS, "engine")
        self._calls = asyncio.Semaphore(_CALLS)

    async def ask(self, method: str, path: str, body: object = None, **query: object) -> Any:
        """What the engine answers, decoded from JSON; None where it says nothing."""
        content = b"" if body is None else orjson.dumps(body)
        answer = await self._answer(method, path, query, "application/json", content)
        return orjson.loads(answer.body) if answer.body else None

    async def must(self, method: str, path: str, body: object = None, **query: object) -> Any:
        """The same, of what an engine in order does not refuse, or no longer in a moment: Unavailable."""
        try:
            return await self.ask(method, path, body, **query)
        except Refused as error:
            raise Unavailable(f"engine: {error}") from error

    async def remove(self, container: str) -> None:
        """By force, with its anonymous volumes. Gone already is fine; one whose removal is under way is Unavailable."""
        await self._remove(f"/containers/{container}", v=True, force=True)

    async def remove_volume(self, name: str) -> None:
        """Gone already is fine; one still in use is Unavailable."""
        await self._remove(f"/volumes/{name}")

    async def _remove(self, path: str, **query: object) -> None:
        try:
            await self.ask("DELETE", path, **query)
        except Missing:
            return
        except Refused as error:
            raise Unavailable(f"engine: {error}") from error

    async def containers(self, label: str) -> list[dict[str, Any]]:
        """All that carry the label (`name=value`), whether they run or not."""
        return list(await self.ask("GET", "/containers/json", all=True, filters={"label": [label]}))

    async def lay(self, container: str, folder: str, archive: Body) -> None:
        """Unpack a tar archive in a folder of the container. What is there by the same name is replaced."""
        await self._answer("PUT", f"/containers/{container}/archive", {"path": folder}, "application/x-tar", archive)

    async def fetch(self, container: str, path: str) -> bytes:
        """A file or folder of the container as a tar archive."""
        return (await self._answer("GET", f"/containers/{container}/archive", {"path": path})).body

    async def load(self, archive: bytes) -> None:
        """An image, as `docker save` writes it."""
        await self._answer("POST", "/images/load", {"quiet": True}, "application/x-tar", archive)

    async def is_folder(self, container: str, path: str) -> bool:
        """Whether the container, not started yet, has a folder there."""
        try:
            answer = await self._answer("HEAD", f"/containers/{container}/archive", {"path": path})
        except Missing:
            return False
        stat = orjson.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))
        return bool(stat["mode"] & _FOLDER)

    async def thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A call of the SDK's, which blocks."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))
        except APIError as error:
            raise _fault(error.response.status_code if error.response is not None else 0, str(error.explanation or error)) from error
        except (requests.exceptions.RequestException, DockerException, OSError) as error:
            raise Unavailable(f"engine: {error}") from error

    async def execute(self, container: str, words: list[str]) -> Connection:
        """A process in a running container: its stdin, and its stdout in the engine's frames. The caller closes the writer."""
        config = {"Cmd": words, "AttachStdin": True, "AttachStdout": True, "AttachStderr": False, "Tty": False}
        exec_id = (await self.must("POST", f"/containers/{container}/exec", config))["Id"]
        return await self._stream("POST", f"/exec/{exec_id}/start", {"Detach": False, "Tty": False})

    async def attach(self, container: str) -> Connection:
        """The stdin and stdout, in the engine's frames, of a container that is not started yet. The caller closes the writer."""
        return await self._stream("POST", f"/containers/{container}/attach?stream=1&stdin=1&stdout=1")

    async def events(self, **filters: list[str]) -> AsyncIterator[dict[str, Any]]:
        """The engine's events that match, as they come; the first is {} once listening has begun. Ends in Unavailable."""
        connection = await self._stream("GET", f"/events?{_query({'filters': filters})}")
        try:
            yield {}
            async for chunk in chunks(connection.reader):
                for line in chunk.splitlines():
                    if line.strip():
                        yield orjson.loads(line)
            raise Unavailable("engine: its events ended")
        except (OSError, ValueError, EOFError) as error:
            raise Unavailable(f"engine: {error}") from error
        finally:
            await settle(connection.writer)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._wire.close()
        self.pulls.close()

    async def _answer(self, method: str, path: str, query: Mapping[str, object], kind: str = "", body: Body = b"") -> Answer:
        try:
            async with self._calls, asyncio.timeout(_TIMEOUT if isinstance(body, bytes) else None):
                answer = await self._wire.ask(method, f"/v{_API}{path}?{_query(query)}", kind, body)
        except TimeoutError as error:
            raise Unavailable(f"engine: no answer to {method} {path} in {_TIMEOUT} s") from error
        except (OSError, EOFError, ValueError) as error:
            raise Unavailable(f"engine: {error}") from error
        if answer.status >= 400:
            raise _fault(answer.status, _message(answer))
        return answer

    async def _stream(self, method: str, path: str, body: object = None) -> Connection:
        content = b"" if body is None else orjson.dumps(body)
        try:
            answer, connection = await self._wire.stream(method, f"/v{_API}{path}", "application/json", content)
        except (OSError, EOFError, ValueError) as error:
            raise Unavailable(f"engine: {error}") from error
        if answer.status >= 300:
            connection.writer.close()
            raise Unavailable(f"engine: {method} {path}: it answered {answer.status}")
        return connection


def _fault(status: int, message: str) -> Exception:
    if status >= 500:
        return Faltering(f"engine: {message}")
    return Missing(status, message) if status == 404 else Refused(status, message)


def _message(answer: Answer) -> str:
    """The engine's own words; it has none for a HEAD."""
    try:
        return str(orjson.loads(answer.body)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return answer.body.decode(errors="replace") or f"it answered {answer.status}"


def _query(query: Mapping[str, object]) -> str:
    words = {name: orjson.dumps(value).decode() if isinstance(value, dict | bool) else str(value) for name, value in query.items()}
    return urlencode(words)
