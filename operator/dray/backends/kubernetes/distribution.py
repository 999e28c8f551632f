"""A registry by the distribution API, as OCI and Docker write it down: manifests and blobs, and the logins on the way."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Mapping

import orjson
from yarl import URL

from dray.backends.kubernetes.fetch import Answer, Failed, Fetch, Untrusted, harmless, loopback
from dray.backends.kubernetes.logins import Login
from dray.backends.kubernetes.reference import DIGEST, HUB, Reference

_HUB_SERVER = "registry-1.docker.io"
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_CHALLENGE = re.compile(r'(?<![A-Za-z])([A-Za-z]{1,32})\s+((?:[A-Za-z_]+=(?:"[^"]*"|[^\s,"]+)\s*(?:,\s*)?)+)')
_PARAMETER = re.compile(r'([A-Za-z_]+)=(?:"([^"]*)"|([^\s,"]+))')
_MOST_TOKENS = 1000
_LIFE, _LONGEST_LIFE, _MARGIN = 60, 3600, 10  # seconds: of a token that says nothing of it; at most; before its end
_NO_SUCH = (400, 404, 410)  # 400: to this registry it is not even a name


class NoImage(Exception):
    """There is no such image, or not for this login."""


class Distribution:
    """All registries. `plain`: those to be asked without TLS, as host[:port]. Raises NoImage and Failed."""

    def __init__(self, fetch: Fetch, plain: tuple[str, ...]) -> None:
        self._fetch, self._plain = fetch, plain
        self._tokens: dict[tuple[str, Login | None], tuple[str, float]] = {}

    async def digest(self, image: Reference, login: Login | None) -> str:
        """What the tag means now."""
        answer = await self._ask("HEAD", image, f"manifests/{image.tag}", login)
        digest = answer.headers.get("docker-content-digest", "")
        if DIGEST.fullmatch(digest):
            return digest
        content = (await self._ask("GET", image, f"manifests/{image.tag}", login)).body
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    async def manifest(self, image: Reference, digest: str, login: Login | None) -> bytes:
        return _proven(digest, (await self._ask("GET", image, f"manifests/{digest}", login)).body)

    async def blob(self, image: Reference, digest: str, login: Login | None) -> bytes:
        return _proven(digest, (await self._ask("GET", image, f"blobs/{digest}", login)).body)

    async def _ask(self, method: str, image: Reference, path: str, login: Login | None) -> Answer:
        origin = await self._origin(image.host)
        url = URL(f"{origin}/v2/{image.path}/{path}", encoded=True)
        key = (image.name, login)
        answer = await self._fetch.ask(method, url, _headers(self._known(key)))
        if answer.status == 401:
            header, life = await self._authorized(answer, URL(origin), image, login)
            self._remember(key, header, life)
            answer = await self._fetch.ask(method, url, _headers(header))
        return _judged(answer, image.host)

    async def _origin(self, host: str) -> str:
        """This machine's own registries may do without TLS, as for container engines."""
        if host == HUB:
            return f"https://{_HUB_SERVER}"
        if host in self._plain:
            return f"http://{host}"
        if loopback(URL(f"//{host}").host or ""):
            try:
                await self._fetch.ask_once("GET", URL(f"https://{host}/v2/"), {})
            except Untrusted:
                return f"https://{host}"
            except Failed:
                return f"http://{host}"
        return f"https://{host}"

    def _known(self, key: tuple[str, Login | None]) -> str:
        header, until = self._tokens.get(key, ("", 0.0))
        return header if time.monotonic() < until else ""

    def _remember(self, key: tuple[str, Login | None], header: str, life: float) -> None:
        self._tokens.pop(key, None)
        while len(self._tokens) >= _MOST_TOKENS:
            self._tokens.pop(next(iter(self._tokens)))
        self._tokens[key] = (header, time.monotonic() + life)

    async def _authorized(self, refusal: Answer, origin: URL, image: Reference, login: Login | None) -> tuple[str, float]:
        """The header that the registry asks for, and for how many seconds it is good."""
        challenges = _challenges(refusal)
        if "bearer" in challenges:
            return await self._token(challenges["bearer"], origin, image, login)
        if login is None or not login.username or "basic" not in challenges:
            raise NoImage(f"{image.host} wants a login{_said(refusal)}")
        return _basic(login), _LONGEST_LIFE

    async def _token(self, challenge: Mapping[str, str], origin: URL, image: Reference, login: Login | None) -> tuple[str, float]:
        realm = _realm(challenge, origin)
        wanted = {"service": challenge.get("service", ""), "scope": challenge.get("scope") or f"repository:{image.path}:pull"}
        if login is not None and login.identity:
            form = wanted | {"grant_type": "refresh_token", "refresh_token": login.identity, "client_id": "dray"}
            answer = await self._fetch.ask_once("POST", realm, {}, form)
        else:
            answer = await self._fetch.ask_once("GET", realm.update_query(wanted), _headers(_basic(login) if login else ""))
        if answer.status in (401, 403):
            raise NoImage(f"{realm.host} refuses the login{_said(answer)}")
        return _token_in(_judged(answer, str(realm.host)), str(realm.host))


def _headers(authorization: str) -> dict[str, str]:
    return {"Accept": f"{_MANIFESTS}, */*"} | ({"Authorization": authorization} if authorization else {})


def _basic(login: Login) -> str:
    return f"Basic {base64.b64encode(f'{login.username}:{login.password}'.encode()).decode()}"


def _challenges(refusal: Answer) -> dict[str, dict[str, str]]:
    """By scheme in lower case, its parameters."""
    header = refusal.headers.get("www-authenticate", "")
    found = ((scheme.lower(), _PARAMETER.findall(rest)) for scheme, rest in _CHALLENGE.findall(header))
    return {scheme: {name.lower(): quoted or bare for name, quoted, bare in parameters} for scheme, parameters in found}


def _realm(challenge: Mapping[str, str], origin: URL) -> URL:
    """Where tokens are had. It gets the login for this registry, so it must be as safe to talk to."""
    try:
        realm = URL(challenge.get("realm", ""))
    except ValueError:
        realm = URL()
    if not harmless(realm, origin):
        raise Failed(f"{origin.host} names {realm.host} for logins, which must not get them")
    return realm


def _token_in(answer: Answer, host: str) -> tuple[str, float]:
    try:
        told = orjson.loads(answer.body)
        token, life = told.get("token") or told["access_token"], float(told.get("expires_in") or _LIFE)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Failed(f"{host} answers with no token") from None
    return f"Bearer {token}", min(max(life, _LIFE), _LONGEST_LIFE) - _MARGIN


def _judged(answer: Answer, host: str) -> Answer:
    if answer.status == 200:
        return answer
    if answer.status in _NO_SUCH:
        raise NoImage(f"{host} has no such image{_said(answer)}")
    if answer.status in (401, 403):
        raise NoImage(f"{host} has no such image, or not for this login{_said(answer)}")
    raise Failed(f"{host} answers {answer.status}{_said(answer)}")


def _said(answer: Answer) -> str:
    """What the registry gives as its reason, if anything."""
    try:
        message = str(orjson.loads(answer.body)["errors"][0]["message"])
    except (ValueError, LookupError, TypeError):
        return ""
    return f": {message[:200]}" if message.isprintable() else ""


def _proven(digest: str, content: bytes) -> bytes:
    algorithm, _, wanted = digest.partition(":")
    if hashlib.new(algorithm, content).hexdigest() != wanted:
        raise Failed(f"what the registry sends is not {digest}")
    return content
