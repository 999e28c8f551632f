"""Counts HTTP requests that go through: between a client and a server on this machine."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Self

_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (/\S*) HTTP/1\.1\r\n")


class Calls:
    """Hands everything on to the Unix socket `server`, both ways. `with` opens and closes it.

    `kind`: what a request is counted as, by its method and path.
    """

    def __init__(self, listener: socket.socket, server: str, kind: Callable[[str, str], str]) -> None:
        self.counted: Counter[str] = Counter()
        self._listener, self._server, self._kind = listener, server, kind

    def __enter__(self) -> Self:
        self._listener.listen(256)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            answers = threading.Thread(target=self._hand_on, args=(server, client, False), daemon=True)
            answers.start()
            self._hand_on(client, server, True)
            answers.join()

    def _hand_on(self, source: socket.socket, to: socket.socket, counts: bool) -> None:
        """Clients write a request's line and headers at once, so it begins what is received."""
        with suppress(OSError):  # either side has closed
            while block := source.recv(2**18):
                if counts and (found := _REQUEST.match(block)):
                    self.counted[self._kind(found[1].decode(), found[2].decode())] += 1
                to.sendall(block)
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)
