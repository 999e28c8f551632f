"""The API server as the backend asks it: calls in threads (`dray.cluster`), watches and execs by asyncio on connections of their own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from yarl import URL

from dray.backends.kubernetes.line import PROTOCOLS, WebSocket
from dray.cluster import Cluster, Refused
from dray.errors import Unavailable

_WORKERS = 8
_CONNECT = 10  # seconds
_SILENT = 90  # seconds: a bookmark comes every 60
_HEARTBEAT = 30  # seconds between pings of an exec
_SETTLE = 0.1  # seconds: a TLS connection goes a moment after its session is closed
_GONE, _TOO_LARGE = 410, 413
_LARGEST = 2**20  # bytes of an object: etcd takes 1.5 MiB, and the cluster has something to add


class Expired(Exception):
    """What a watch was to go on from is known no longer: list anew."""


class Api:
    """Raises what `dray.cluster.Cluster` raises."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix="kubernetes-jobs")
        self._session: aiohttp.ClientSession | None = None

    @property
    def namespace(self) -> str:
        return self._cluster.namespace

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._session is not None:
            await self._session.close()
            self._session = None
            await asyncio.sleep(_SETTLE)

    async def get(self, path: str) -> Any:
        return await self._call(self._cluster.get, path)

    async def metadata(self, path: str) -> Any:
        return await self._call(self._cluster.metadata, path)

    async def create(self, path: str, body: dict[str, Any]) -> Any:
        """Refuses itself what is too large: the API server's answer is none that tells it from what passes."""
        size = len(orjson.dumps(body))
        if size > _LARGEST:
            raise Refused(_TOO_LARGE, f"it would have {size} bytes, at most {_LARGEST} can be stored")
        return await self._call(self._cluster.create, path, body)

    async def delete(self, path: str, body: dict[str, Any]) -> Any:
        return await self._call(self._cluster.delete, path, body)

    async def watch(self, path: str, query: dict[str, str]) -> AsyncGenerator[dict[str, Any], None]:
        """Events, until the API server ends it; the first is {} once it has begun. Raises Expired, and Unavailable."""
        asked = {**query, "watch": "1", "allowWatchBookmarks": "true"}
        url = URL(f"{self._configuration.host}{path}?{urlencode(asked)}", encoded=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENT)
        try:
            async with self._connections().get(url, headers=await self._headers(), timeout=timeout) as answer:
                if answer.status == _GONE:
                    raise Expired
                if answer.status != 200:
                    raise Unavailable(f"Kubernetes: the watch is answered {answer.status}")
                yield {}
                async for line in _lines(answer.content):
                    yield _event(line)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable(f"Kubernetes: {type(error).__name__}") from error

    async def execute(self, namespace: str, pod: str, container: str, words: Sequence[str]) -> WebSocket:
        """A process in a running container: its stdin and stdout. Raises Unavailable."""
        asked = [("container", container), *(("command", word) for word in words), ("stdin", "true"), ("stdout", "true")]
        url = URL(f"{self._configuration.host}/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urlencode(asked)}", encoded=True)
        try:
            async with asyncio.timeout(_CONNECT):
                socket = await self._connections().ws_connect(
                    url, headers=await self._headers(), protocols=PROTOCOLS, heartbeat=_HEARTBEAT, max_msg_size=0, compress=0
                )
        except aiohttp.WSServerHandshakeError as error:
            raise Unavailable(f"Kubernetes: the exec is answered {error.status}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"Kubernetes: {type(error).__name__}") from error
        return WebSocket(socket)

    async def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    @property
    def _configuration(self) -> Any:
        return self._cluster.configuration

    async def _headers(self) -> dict[str, str]:
        """Who we are. In a thread: a token may have to be renewed by a program or a file."""
        token = await self._call(self._configuration.get_api_key_with_prefix, "BearerToken")
        return {"Authorization": token} if token else {}

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls(), limit=0))
        return self._session

    def _tls(self) -> ssl.SSLContext:
        configuration = self._configuration
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        return context


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, of any length."""
    buffer = bytearray()
    async for chunk in content.iter_any():
        buffer += chunk
        if b"\n" in chunk:
            *lines, rest = buffer.split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                yield bytes(line)


def _event(line: bytes) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(line)
    if event["type"] == "ERROR":
        if event["object"].get("code") == _GONE:
            raise Expired
        raise Unavailable(f"Kubernetes: the watch ends: {event['object'].get('code')}")
    return event
