"""uvicorn's HTTP protocol with an end to what it keeps of a request that does not end: it has none of its own."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dray_api import problems
from dray_api.guard import HeadersTooLarge

MAX_HEAD = 512 * 2**10  # bytes: more than one read, so that no whole request is over it; guard.py has the real limits


class Protocol(HttpToolsProtocol):
    """Closes a connection on which request line and headers do not end within MAX_HEAD bytes."""

    _head = 0  # bytes read since headers began, as far as they are not complete
    _in_head = True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._in_head = 0, True

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def _refuse(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            answer = problems.of(HeadersTooLarge(f"request line and headers are longer than {MAX_HEAD} bytes"))
            headers = b"".join(name + b": " + value + b"\r\n" for name, value in answer.raw_headers)
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n" + headers + b"\r\n" + bytes(answer.body))
        self.transport.close()
