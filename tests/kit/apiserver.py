"""The cluster's API server by plain HTTP, as `kubectl proxy` hands it on with the login of KUBECONFIG: to ask it, and to count what others ask."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from kit.counting import Calls
from kit.process import Process, wait_ready

_NAMED = re.compile(r"/apis?/(?:[\w.]+/)?v\w+(?:/namespaces/[^/]+)?/(\w+)(/[^/]+)?(/\w+)?")


class ApiServer:
    """`http` asks it. `socket` is where it listens, in the folder given."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "apiserver.sock"
        self._process = Process(["kubectl", "proxy", f"--unix-socket={self.socket}", "--reject-paths=^$"], folder / "kubectl-proxy.log")
        self.http = httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://localhost", timeout=600)
        wait_ready(self._process, lambda: "Starting to serve" in self._process.output, 30, "kubectl proxy")

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def watch(self, path: str, version: str, **query: str) -> Iterator[dict[str, Any]]:
        """The objects that change there from that version on, as they are after each change."""
        asked = {"watch": "1", "resourceVersion": version} | query
        with self.http.stream("GET", path, params=asked) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                event = json.loads(line)
                assert event["type"] != "ERROR", event
                yield event["object"]

    def close(self) -> None:
        self.http.close()
        self._process.kill()


class ApiCalls(Calls):
    """Where a kubeconfig's `server` may point, before the API server: counts requests by kind."""

    def __init__(self, server: ApiServer) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        super().__init__(listener, str(server.socket), kind)


def kind(method: str, path: str) -> str:
    """`GET /api/v1/namespaces/here/pods/this/exec?…` as `GET pods/NAME/exec`; a watch as `WATCH pods`."""
    path, _, query = path.partition("?")
    named = _NAMED.fullmatch(path)
    what = path if named is None else named[1] + ("/NAME" if named[2] else "") + (named[3] or "")
    return f"{'WATCH' if 'watch=1' in query else method} {what}"
