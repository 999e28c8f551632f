"""Between a client and a Redis: loses a reply when told to, as a broken connection would."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from kit.redis import RedisServer

_WRITES = (b"EVALSHA", b"MULTI", b"\r\nSET\r\n", b"LREM")


class Proxy:
    """Runs from the start. `url` is where clients find it."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._armed = False
        self.lost = 0  # replies
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_next(self) -> None:
        """Redis does the next write, and its client's connection ends without a reply."""
        self._armed = True

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            behind = socket.socket(socket.AF_UNIX)
            behind.connect(str(self._server.socket))
            _Link(self, client, behind)

    def takes(self, request: bytes) -> bool:
        """Whether the reply to this is to be lost."""
        if self._armed and any(word in request.upper() for word in _WRITES):
            self._armed = False
            return True
        return False

    def passes(self, reply: bytes) -> bool:
        """Whether it may pass all the same: Redis has done nothing, since it did not know the script."""
        if reply.startswith(b"-NOSCRIPT"):
            self._armed = True
            return True
        self.lost += 1
        return False


class _Link:
    """One connection, both ways."""

    def __init__(self, proxy: Proxy, client: socket.socket, behind: socket.socket) -> None:
        self._proxy, self._client, self._behind = proxy, client, behind
        self._losing = False
        for run in (self._requests, self._replies):
            threading.Thread(target=run, daemon=True).start()

    def _requests(self) -> None:
        with suppress(OSError):
            while request := self._client.recv(65536):
                self._losing = self._losing or self._proxy.takes(request)
                self._behind.sendall(request)
        self._end()

    def _replies(self) -> None:
        with suppress(OSError):
            while reply := self._behind.recv(65536):
                if self._losing and not self._proxy.passes(reply):
                    break
                self._losing = False
                self._client.sendall(reply)
        self._end()

    def _end(self) -> None:
        for end in (self._client, self._behind):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
