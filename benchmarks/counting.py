"""Counts what goes to the engine and to Redis: a proxy in front of the engine's socket, and Redis's own MONITOR."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from redis import Redis

from kit.counting import Calls

_NAMED = re.compile(r"^/(containers|images|volumes|exec|networks)/(?!json$|create$|prune$)[^?]*?(/\w+)?$")


class EngineCalls(Calls):
    """A Unix socket that hands everything on to the engine's."""

    def __init__(self, path: Path, engine: str) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        super().__init__(listener, engine, kind)
        self.url = f"unix://{path}"
        self._path = path

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._path.unlink()


def kind(method: str, path: str) -> str:
    """`POST /v1.41/containers/0123abcd/start?x=y` as `POST /containers/ID/start`."""
    path, _, _ = re.sub(r"^/v[\d.]+(?=/)", "", path).partition("?")
    return f"{method} " + _NAMED.sub(r"/\1/ID\2", path)


class RedisTrips:
    """Counts commands as clients send them, by name; what a script calls inside Redis is no trip. `with` begins and ends it."""

    def __init__(self, url: str) -> None:
        self.counted: Counter[str] = Counter()
        self._client, self._url = Redis.from_url(url), url

    def __enter__(self) -> RedisTrips:
        self._monitor: Any = self._client.monitor()  # type: ignore[no-untyped-call]
        self._monitor.__enter__()
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with Redis.from_url(self._url) as client:
            client.echo(_END)
        self._thread.join()
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def _count(self) -> None:
        for seen in self._monitor.listen():
            command = str(seen["command"])
            if command == f"ECHO {_END}":
                return
            if seen["client_type"] != "lua":
                self.counted[command.split(maxsplit=1)[0].upper()] += 1


_END = "the count ends"
