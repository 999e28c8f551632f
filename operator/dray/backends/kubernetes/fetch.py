"""HTTP to registries and their token servers, none of which is trusted: bounded in time and size, and redirected only where it does no harm."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from dray.errors import BadSetting

_TIMEOUTS = aiohttp.ClientTimeout(total=30, connect=10, sock_read=10)
_LARGEST = 2**20  # bytes of an answer: a manifest or a configuration is a few KiB
_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)


class Failed(Exception):
    """The registry, or the way to it: it may pass."""


class Untrusted(Failed):
    """Its certificate is not good."""


class Answer(NamedTuple):
    """`headers` by name in lower case; where one comes twice, its values are joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetch:
    """Proxies are those of the environment. Raises Failed where no whole answer comes."""

    def __init__(self, ca: Path | None) -> None:
        """`ca`: trusted besides the system's authorities. Raises BadSetting."""
        try:
            self._tls = ssl.create_default_context()
            if ca is not None:
                self._tls.load_verify_locations(ca)
        except OSError as error:
            raise BadSetting(f"DRAY_REGISTRY_CA: {ca}: {error}") from None
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, method: str, url: URL, headers: Mapping[str, str]) -> Answer:
        """Follows redirects; the login goes to no other origin than the first."""
        for _ in range(1 + _REDIRECTS):
            answer = await self.ask_once(method, url, headers)
            target = _target(url, answer)
            if target is None:
                return answer
            if target.origin() != url.origin():
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        raise Failed(f"{url.host} redirects again and again")

    async def ask_once(self, method: str, url: URL, headers: Mapping[str, str], form: Mapping[str, str] | None = None) -> Answer:
        """A redirect is an answer like any other."""
        proxy = None if proxy_bypass(url.authority) else getproxies().get(url.scheme)
        try:
            async with self._connected().request(method, url, headers=headers, data=form, proxy=proxy, ssl=self._tls, allow_redirects=False) as response:
                body = await _all_of(response.content)
                names = {name.lower() for name in response.headers}
                return Answer(response.status, {name: ", ".join(response.headers.getall(name)) for name in names}, body)
        except TimeoutError:
            raise Failed(f"{url.host} does not answer in time") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise Untrusted(f"{url.host}: {error.certificate_error}") from None
        except aiohttp.ClientConnectorError as error:
            raise Failed(f"{url.host}: {error.os_error.strerror or error.os_error}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Failed(f"{url.host}: {error or type(error).__name__}") from None

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit_per_host=8),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_TIMEOUTS,
                auto_decompress=False,
                headers={"User-Agent": "dray", "Accept-Encoding": "identity"},
            )
        return self._session


def harmless(target: URL, origin: URL) -> bool:
    """Whether what `origin` names may be asked: not less safe, and no address inside that only we can reach."""
    if target.scheme not in ("http", "https") or target.host is None or (target.scheme, origin.scheme) == ("http", "https"):
        return False
    return target.host == origin.host or not _inside(target.host) or _inside(origin.host or "")


def loopback(host: str) -> bool:
    """This machine, by its name or an address."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _inside(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and not address.is_global)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """In every form that a connection would take, 0x7f.1 among them. None: a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _target(url: URL, answer: Answer) -> URL | None:
    """Where it redirects to, if it does. Raises Failed where nobody should go."""
    if answer.status not in _MOVED or "location" not in answer.headers:
        return None
    try:
        target = url.join(URL(answer.headers["location"], encoded=True))
    except ValueError:
        raise Failed(f"{url.host} redirects to what is no URL") from None
    if not harmless(target, url):
        raise Failed(f"{url.host} redirects to {target.host}, where it must not")
    return target


async def _all_of(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _LARGEST:
            raise Failed(f"an answer of more than {_LARGEST} bytes")
    return bytes(body)
