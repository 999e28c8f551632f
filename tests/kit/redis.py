"""A real redis-server on a Unix socket in a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as NotListening
from redis.exceptions import RedisError

from kit.process import Process, wait_ready


class RedisServer:
    """Runs from the start. What it holds survives `kill` and `start` where `options` say so, such as `--appendonly yes`."""

    def __init__(self, *options: str) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="dray-redis-"))
        self.socket = self.dir / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.options = options
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.dir), "--save", "", *self.options]
        self.process = Process(command, self.dir / "output.log")
        wait_ready(self.process, self._answers, 30, "redis-server")

    def client(self) -> Redis:
        """For the caller to close."""
        return Redis(unix_socket_path=str(self.socket))

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.process.stop()

    def remove(self) -> None:
        self.process.kill()
        shutil.rmtree(self.dir)

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except (NotListening, RedisError):
                return False
