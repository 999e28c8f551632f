"""A real `dray api` on a Redis of the test's: no operator, so its jobs wait for ever. And what speaks to it byte by byte."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dray.store import Store
from kit.dray import DRAY, answers, client, environment
from kit.process import Process, free_port, wait_ready

T = TypeVar("T")


class Api:
    """Runs from the start. `env` is added to this process's environment."""

    def __init__(self, redis_url: str, env: Mapping[str, str] | None = None, args: tuple[str, ...] = ()) -> None:
        self.redis_url = redis_url
        self.dir = Path(tempfile.mkdtemp(prefix="dray-api-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.outputs = (self.dir / "outputs").as_uri()
        settings = {"REDIS_URL": redis_url, "LOG_LEVEL": "debug", "DRAY_OUTPUTS": self.outputs, **(env or {})}
        self.http = client(self.url, settings.get("DRAY_TOKEN"), timeout=60)
        command = [DRAY, "api", "--port", str(self.port), *args]
        self.process = Process(command, self.dir / "output.log", environment() | settings)
        wait_ready(self.process, lambda: answers(self.http, "/healthz"), 30, "dray api")

    def post(self, job: Mapping[str, Any]) -> str:
        answer = self.http.post("/jobs", json=job)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def ids(self) -> list[str]:
        return [job["id"] for job in self.http.get("/jobs").raise_for_status().json()]

    def with_store(self, use: Callable[[Store], Awaitable[T]]) -> T:
        """What an operator on the same Redis would do."""
        return with_store(self.redis_url, use)

    def raw(self, sent: bytes, ends: bool = False) -> bytes:
        """All that comes back until the server ends the connection; with `ends`, after we said that no more will come."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            with suppress(OSError):  # refused before all was sent: the answer says why
                connection.sendall(sent)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            return _received(connection)

    @property
    def memory(self) -> int:
        """The most bytes it has had resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def close(self) -> None:
        try:
            assert self.process.stop() == 0
        finally:
            print(f"--- dray api, port {self.port}", *self.process.output.splitlines()[-100:], sep="\n")
            self.process.kill()
            self.http.close()
            shutil.rmtree(self.dir)


def with_store(redis_url: str, use: Callable[[Store], Awaitable[T]]) -> T:
    async def used() -> T:
        store = Store(redis_url)
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(used())


def _received(connection: socket.socket) -> bytes:
    found = bytearray()
    while True:
        try:
            block = connection.recv(65536)
        except ConnectionResetError:
            return bytes(found)
        if not block:
            return bytes(found)
        found += block
