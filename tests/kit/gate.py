"""Between a client and a server on TCP: cuts connections, lets them hang, or takes no new ones, when told to."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit


class Gate:
    """Runs from the start. Clients find it at `address`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._behind = (parts.hostname or "", parts.port or 443)
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
            if self._shut:
                client.close()
                continue
            with suppress(OSError):
                self._links.append(_Link(client, socket.create_connection(self._behind)))


class _Link:
    """One connection, both ways."""

    def __init__(self, *ends: socket.socket) -> None:
        self._ends = ends
        self.hangs, self.sent_at = False, time.monotonic()
        for source, sink in (ends, reversed(ends)):
            threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(65536):
                if source is self._ends[0]:
                    self.sent_at = time.monotonic()
                if not self.hangs:
                    sink.sendall(block)
        self.end()

    def end(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
