"""Counts what goes to the engine and to Redis: a proxy in front of the engine's socket, and Redis's own MONITOR."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis

_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|DELETE) (?:/v[\d.]+)?(/\S*) HTTP/1\.1\r\n")
_NAMED = re.compile(r"^/(containers|images|volumes|exec|networks)/(?!json$|create$|prune$)[^?]*?(/\w+)?$")


class EngineCalls:
    """A Unix socket that hands everything on to the engine's, both ways, and counts requests by kind. `with` opens and closes it."""

    def __init__(self, path: Path, engine: str) -> None:
        self.url = f"unix://{path}"
        self.counted: Counter[str] = Counter()
        self._engine = engine
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._path = path

    def __enter__(self) -> EngineCalls:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self._engine)
            answers = threading.Thread(target=self._hand_on, args=(engine, client, False), daemon=True)
            answers.start()
            self._hand_on(client, engine, True)
            answers.join()

    def _hand_on(self, source: socket.socket, to: socket.socket, counts: bool) -> None:
        """Clients write a request's line and headers at once, so it begins what is received."""
        with suppress(OSError):  # either side has closed
            while block := source.recv(2**18):
                if counts and (found := _REQUEST.match(block)):
                    self.counted[kind(found[1].decode(), found[2].decode())] += 1
                to.sendall(block)
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)


def kind(method: str, path: str) -> str:
    """`POST /containers/0123abcd/start?x=y` as `POST /containers/ID/start`."""
    path, _, _ = path.partition("?")
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
