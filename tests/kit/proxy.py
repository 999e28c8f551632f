"""Between a client and a server: cuts connections, lets them hang, takes no new ones, or loses a reply, when told to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

_WRITES = (b"EVALSHA", b"MULTI", b"\r\nSET\r\n", b"LREM")


class Proxy:
    """Runs from the start, before the server that `url` names. Clients find it at `address`."""

    def __init__(self, url: str) -> None:
        self._behind = url
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._shut = False
        self._links: list[_Link] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """All connections end; new ones are taken."""
        links, self._links = self._links, []
        for link in links:
            link.end()

    def hang(self, quiet: float) -> None:
        """Connections whose clients have sent nothing for so many seconds stay, and nothing comes through them any more."""
        for link in self._links:
            link.hangs = time.monotonic() > link.sent_at + quiet

    def shut(self) -> None:
        """All connections end, and so does each new one."""
        self._shut = True
        self.cut()

    def open(self) -> None:
        self._shut = False

    def close(self) -> None:
        self.shut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._shut:
                    raise ConnectionRefusedError
                self._links.append(self._linked(client, _connected(self._behind)))
            except OSError:
                client.close()

    def _linked(self, client: socket.socket, server: socket.socket) -> _Link:
        return _Link(client, server)


class RedisProxy(Proxy):
    """Before a Redis: loses a reply when told to, as a broken connection would. Clients find it at `url`."""

    def __init__(self, url: str) -> None:
        self._armed = False
        self.lost = 0  # replies
        super().__init__(url)
        self.url = f"redis://{self.address}"

    def lose_next(self) -> None:
        """Redis does the next write, and its client's connection ends without a reply."""
        self._armed = True

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

    def _linked(self, client: socket.socket, server: socket.socket) -> _Link:
        return _RedisLink(self, client, server)


class _Link:
    """One connection, both ways."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends = (client, server)
        self.hangs, self.sent_at = False, time.monotonic()
        for source, sink, goes_on in ((client, server, self._asks), (server, client, self._answers)):
            threading.Thread(target=self._pass, args=(source, sink, goes_on), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, goes_on: Callable[[bytes], bool]) -> None:
        with suppress(OSError):
            while block := source.recv(65536):
                if goes_on(block):
                    sink.sendall(block)
        self.end()

    def _asks(self, _: bytes) -> bool:
        """Whether what the client sent goes on to the server."""
        self.sent_at = time.monotonic()
        return not self.hangs

    def _answers(self, _: bytes) -> bool:
        """Whether what the server sent goes on to the client."""
        return not self.hangs

    def end(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class _RedisLink(_Link):
    def __init__(self, proxy: RedisProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._losing = proxy, False
        super().__init__(client, server)

    def _asks(self, request: bytes) -> bool:
        self._losing = self._losing or self._proxy.takes(request)
        return super()._asks(request)

    def _answers(self, reply: bytes) -> bool:
        if self._losing and not self._proxy.passes(reply):
            self.end()
            return False
        self._losing = False
        return super()._answers(reply)


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return socket.create_connection((parts.hostname or "", parts.port or 443))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(parts.path)
    return connection
