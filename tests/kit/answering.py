"""A small HTTP server whose answers a test writes down: for what no real server would do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """A request. `path` without its query; `headers` by name in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class Told(NamedTuple):
    """What to answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Answering:
    """Runs from the start. `answers` by path, or by method and path; what is not there is 404. `asked`: all requests so far."""

    def __init__(self) -> None:
        self.answers: dict[str, Told | Callable[[Asked], Told]] = {}
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, path, query, {name.lower(): value for name, value in self.headers.items()}, body)
                outer.asked.append(asked)
                told = outer.answers.get(f"{asked.method} {path}") or outer.answers.get(path) or Told(404)
                told = told(asked) if callable(told) else told
                self.send_response(told.status)
                for name, value in {"Content-Length": str(len(told.body)), **told.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if asked.method != "HEAD":
                    self.wfile.write(told.body)

            do_GET = do_HEAD = do_POST = do_DELETE = do_CONNECT = _answer  # noqa: N815 (the library's names)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def paths(self) -> list[str]:
        """The requests, as `METHOD path`."""
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
