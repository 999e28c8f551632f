"""Who may speak to the API at all, before any route: right host, no other site's page, the token where one is set.

A web page anywhere can make its reader's browser send requests to this machine. What gives it away: a `Host` of its own
(DNS rebinding), or an `Origin` that is not the server's. The request line does not count: the server reads its path only.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from dray.errors import DrayError, Foreign, Malformed, Unauthorized
from dray.settings import Settings
from dray_api import page, problems

OPEN = frozenset({"/healthz", "/readyz"}) | page.PATHS  # asked without a token
MAX_TARGET = 8 * 2**10  # bytes of path and query
MAX_HEADERS = 64 * 2**10  # bytes of names and values

_AUTHORITY = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://(.+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Authority(NamedTuple):
    """`name` in lower case, without brackets or a final dot."""

    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Authority | None:
        found = _AUTHORITY.fullmatch(text)
        if found is None:
            return None
        return cls(_name(found[1]), int(found[2]) if found[2] else None)


class TargetTooLong(DrayError):
    status = HTTPStatus.REQUEST_URI_TOO_LONG
    title = "Request target too long"


class HeadersTooLarge(DrayError):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    title = "Request headers too large"


class Guard:
    """ASGI. Refuses with a problem document, or passes the request on as it is."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._token = settings.token.encode() if settings.token else None
        self._any_address = not settings.loopback
        named = settings.allowed_hosts if settings.loopback else (*settings.allowed_hosts, settings.host, socket.gethostname())
        self._names = frozenset(_name(host) for host in ("localhost", *named))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] == "http":
            try:
                self._check(scope)
            except DrayError as error:
                await problems.of(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raises TargetTooLong, HeadersTooLarge, Malformed, Foreign, Unauthorized."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET:
            raise TargetTooLong(f"path and query are longer than {MAX_TARGET} bytes")
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEADERS:
            raise HeadersTooLarge(f"the headers are longer than {MAX_HEADERS} bytes")
        host = self._host(_all(headers, b"host"))
        _check_origin(_all(headers, b"origin"), host)
        if self._token is not None and scope["path"] not in OPEN:
            self._check_token(_all(headers, b"authorization"), self._token)

    def _host(self, given: list[bytes]) -> Authority:
        if len(given) != 1:
            raise Malformed(f"exactly one Host header is needed, there are {len(given)}")
        text = given[0].decode("latin-1")
        host = Authority.parse(text)
        if host is None:
            raise Malformed("the Host header is not a name or an address with an optional port")
        if not self._is_ours(host.name):
            raise Foreign(f"this server is not called {host.name[:100]!r} but {self._described()}; DRAY_HOSTS adds a name")
        return host

    def _is_ours(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address or address.is_loopback

    def _described(self) -> str:
        return f"{', '.join(sorted(self._names))} or {'any IP address' if self._any_address else 'a loopback address'}"

    def _check_token(self, given: list[bytes], token: bytes) -> None:
        scheme, _, offered = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(offered.strip(b" "), token):
            raise Unauthorized("this server wants its token: 'Authorization: Bearer …'")


def _check_origin(given: list[bytes], host: Authority) -> None:
    """A browser names the page's site: it must be this server."""
    if not given:
        return
    if len(given) > 1:
        raise Malformed(f"at most one Origin header is allowed, there are {len(given)}")
    text = given[0].decode("latin-1")
    found = _ORIGIN.fullmatch(text)
    origin = Authority.parse(found[2]) if found else None
    if found is None or origin is None:
        raise Foreign(f"Origin {text[:100]!r} is not this server's")
    default = _DEFAULT_PORTS[found[1].lower()]
    if (origin.name, origin.port or default) != (host.name, host.port or default):
        raise Foreign(f"Origin {text[:100]!r} is not this server's: it was asked as {host.name[:100]!r}, port {host.port or default}")


def _all(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _name(host: str) -> str:
    return host.lower().removeprefix("[").removesuffix("]").removesuffix(".")
