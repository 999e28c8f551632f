"""Logins to registries: from the pull secrets of a job or of its service account, and from the operator's own config.json.

They are matched to images as the kubelet matches them, so that what we can read it can pull.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import orjson
from docker import auth
from docker.errors import DockerException

from dray.backends.kubernetes.reference import HUB, HUB_NAMES, Reference

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Login:
    """A name with its password, or an identity token that is traded for tokens of the registry's."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)


@dataclass(frozen=True)
class Logins:
    """By where they count (`host[:port][/path]`, `*` for a part of the host), each login; the narrowest first."""

    entries: tuple[tuple[str, Login], ...] = ()

    def of(self, image: Reference) -> tuple[Login, ...]:
        """Those to try, in turn; none: ask without."""
        return tuple(login for pattern, login in self.entries if _fits(pattern, image))


def names(wanted: Iterable[str], account: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The secrets that a pod's images are pulled with: those it names, and where it names none those of its ServiceAccount object."""
    own = tuple(wanted)
    if own or account is None:
        return own
    return tuple(reference["name"] for reference in account.get("imagePullSecrets") or () if reference.get("name"))


def from_secrets(secrets: Iterable[Mapping[str, Any]]) -> Logins:
    """From Secret objects as the API server has them, types dockerconfigjson and dockercfg. What is no login is logged and left out."""
    found: list[tuple[str, Login]] = []
    for secret in secrets:
        try:
            found += _logins_in(secret)
        except (ValueError, TypeError, AttributeError) as error:
            log.warning("the pull secret %s holds no logins: %s", (secret.get("metadata") or {}).get("name"), type(error).__name__)
    return Logins(tuple(sorted(found, key=lambda entry: entry[0], reverse=True)))


def from_config(image: Reference) -> tuple[Login, ...]:
    """The operator's own for this image, by its config.json and the helpers that names. Blocks. Raises ValueError."""
    try:
        found = auth.load_config().resolve_authconfig(image.host) or {}
    except (DockerException, ValueError, OSError, AttributeError, TypeError) as error:  # the last two: JSON of another shape
        raise ValueError(f"config.json: {error}") from None
    told = {key.lower(): value for key, value in found.items()}
    login = Login(told.get("username") or "", told.get("password") or "", told.get("identitytoken") or "")
    return () if login == Login() else (login,)


def _logins_in(secret: Mapping[str, Any]) -> list[tuple[str, Login]]:
    content = secret.get("data") or {}
    if ".dockerconfigjson" in content:
        return _logins_of(_decoded(content[".dockerconfigjson"]).get("auths") or {})
    return _logins_of(_decoded(content.get(".dockercfg", "")))


def _decoded(content: str) -> Any:
    return orjson.loads(base64.b64decode(content))


def _logins_of(entries: Mapping[str, Any]) -> list[tuple[str, Login]]:
    return [(_pattern(key), _login(entry)) for key, entry in entries.items()]


def _login(entry: Mapping[str, str]) -> Login:
    if not entry.get("auth"):
        return Login(entry.get("username") or "", entry.get("password") or "")
    try:
        text = base64.b64decode(entry["auth"] + "==").decode()
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    username, _, password = text.partition(":")
    return Login(username, password)


def _pattern(key: str) -> str:
    """Keys are URLs at times, and those of Docker Hub end in an API's version."""
    bare = key.partition("://")[2] or key
    host, _, path = bare.partition("/")
    version, _, rest = path.partition("/")
    path = rest if version in ("v1", "v2") else path
    return f"{HUB if host in HUB_NAMES else host}/{path}".rstrip("/")


def _fits(pattern: str, image: Reference) -> bool:
    authority, _, path = pattern.partition("/")
    host, _, port = authority.partition(":")
    given_host, _, given_port = image.host.partition(":")
    wanted, given = host.split("."), given_host.split(".")
    return port == given_port and len(wanted) == len(given) and all(map(fnmatchcase, given, wanted)) and image.path.startswith(path)
