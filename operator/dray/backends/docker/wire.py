"""HTTP to the engine's socket by asyncio: short calls on connections that are kept, streams on connections of their own.

The SDK takes two milliseconds of this process's time for a call and a thread for as long as it lasts; this takes a fifth of
that (docs/decisions/0010). Whoever calls must bear that a request is sent twice: a kept connection may turn out closed.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

Body = bytes | AsyncIterator[bytes]
_ROOM = 2**20  # bytes of an answer's head or line
_NO_BODY = (204, 304)


class Answer(NamedTuple):
    """`headers` by name in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Closed(ConnectionError):
    """The connection was closed before a word of the answer came."""


class Wire:
    """To the engine at DOCKER_HOST. Raises OSError, EOFError or ValueError where no whole answer comes."""

    def __init__(self) -> None:
        self._host = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
        self._tls = _tls_context()
        self._kept: list[Connection] = []

    async def ask(self, method: str, path: str, kind: str = "", body: Body = b"") -> Answer:
        """The whole answer. `kind`: of the body, if there is one."""
        while self._kept:
            with suppress(Closed):
                return await self._ask(self._kept.pop(), method, path, kind, body)
        return await self._ask(await self._connect(), method, path, kind, body)

    async def stream(self, method: str, path: str, kind: str = "", body: bytes = b"") -> tuple[Answer, Connection]:
        """The answer's head; the connection, now the caller's to read and to close."""
        connection = await self._connect()
        try:
            await _send(connection, method, path, kind, body, upgrade=True)
            return await _head(connection), connection
        except BaseException:
            connection.writer.close()
            raise

    def close(self) -> None:
        while self._kept:
            self._kept.pop().writer.close()

    async def _ask(self, connection: Connection, method: str, path: str, kind: str, body: Body) -> Answer:
        try:
            await _send(connection, method, path, kind, body)
            answer = await _head(connection)
            if method != "HEAD" and answer.status not in _NO_BODY:
                answer = answer._replace(body=await _body(connection.reader, answer))
        except BaseException:
            connection.writer.close()
            raise
        if answer.headers.get("connection") == "close":
            connection.writer.close()
        else:
            self._kept.append(connection)
        return answer

    async def _connect(self) -> Connection:
        try:
            if self._host.scheme == "unix":
                return Connection(*await asyncio.open_unix_connection(self._host.path, limit=_ROOM))
            return Connection(*await asyncio.open_connection(self._host.hostname, self._host.port or 2375, ssl=self._tls, limit=_ROOM))
        except OSError as error:
            error.filename = self._host.geturl()  # its text says then what does not answer
            raise


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Of a body in chunked transfer encoding, as they come."""
    while size := int((await reader.readuntil(b"\r\n"))[:-2] or b"0", 16):
        chunk = await reader.readexactly(size + 2)
        yield chunk[:-2]
    await reader.readuntil(b"\r\n")


async def settle(writer: asyncio.StreamWriter) -> None:
    """Close a stream and wait until it is closed."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _send(connection: Connection, method: str, path: str, kind: str, body: Body, upgrade: bool = False) -> None:
    writer = connection.writer
    whole = body if isinstance(body, bytes) else None
    length = "Transfer-Encoding: chunked" if whole is None else f"Content-Length: {len(whole)}"
    lines = [f"{method} {path} HTTP/1.1", "Host: docker", length]
    lines += [f"Content-Type: {kind}"] if kind else []
    lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + (whole or b""))
        await writer.drain()
    except ConnectionError as error:
        raise Closed(str(error)) from error
    if not isinstance(body, bytes):
        async for block in body:
            if block:
                writer.write(b"%x\r\n%b\r\n" % (len(block), block))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _head(connection: Connection) -> Answer:
    try:
        head = await connection.reader.readuntil(b"\r\n\r\n")
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        if isinstance(error, asyncio.IncompleteReadError) and error.partial:
            raise
        raise Closed("it closed the connection") from error
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return Answer(int(first.split(" ", 2)[1]), headers)


async def _body(reader: asyncio.StreamReader, answer: Answer) -> bytes:
    if answer.headers.get("transfer-encoding") == "chunked":
        return b"".join([chunk async for chunk in chunks(reader)])
    return await reader.readexactly(int(answer.headers.get("content-length", "0")))


def _tls_context() -> ssl.SSLContext | None:
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return None
    folder = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")  # noqa: PTH111 (as the SDK has it)
    context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))  # noqa: PTH118
    context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))  # noqa: PTH118
    return context
