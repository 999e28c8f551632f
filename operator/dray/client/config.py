"""Which server, and with which token: from the command line, the environment, or the file."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dray.errors import BadSetting

DEFAULT = "http://127.0.0.1:3000"
_KEYS = {"server", "token"}


@dataclass(frozen=True)
class Connection:
    """`warning`: what the user should mend."""

    server: str
    token: str | None = field(repr=False)
    warning: str | None = None


def find(environment: Mapping[str, str], server: str | None = None, token: str | None = None) -> Connection:
    """What is given wins over DRAY_SERVER and DRAY_TOKEN, these over the file. The file's token goes to the file's server only.

    Raises BadSetting, naming what cannot be used.
    """
    path = file(environment)
    kept, warning = _read(path), None
    kept_server = kept.get("server", DEFAULT)
    chosen = _server(server or environment.get("DRAY_SERVER") or kept_server)
    secret = token or environment.get("DRAY_TOKEN")
    if not secret and "token" in kept and chosen == _server(kept_server):
        secret, warning = kept["token"], _readable(path)
    return Connection(chosen, _token(secret) if secret else None, warning)


def file(environment: Mapping[str, str]) -> Path:
    """Where it is, or would be."""
    folder = environment.get("XDG_CONFIG_HOME", "")
    base = Path(folder) if folder.startswith("/") else Path(environment.get("HOME") or Path.home()) / ".config"
    return base / "dray" / "config.toml"


def _read(path: Path) -> dict[str, str]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadSetting(f"{path}: {error}") from None
    for key, value in found.items():
        if key not in _KEYS:
            raise BadSetting(f"{path}: {key} is none of what it can set: {', '.join(sorted(_KEYS))}")
        if not isinstance(value, str) or not value:
            raise BadSetting(f'{path}: {key} must be a text: {key} = "…"')
    return found


def _readable(path: Path) -> str | None:
    if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"others can read the token in {path}: chmod 600 {path}"
    return None


def _server(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query and not parts.fragment
        secretive = parts.username is not None
    except ValueError:
        usable, secretive = False, False
    if not usable or secretive or not url.isprintable() or " " in url:
        raise BadSetting("the server must be such as http://127.0.0.1:3000, without user, query and blanks" + ("" if secretive else f", not {url!r}"))
    return url.rstrip("/")


def _token(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise BadSetting("the token must be printable ASCII characters without blanks")
    return text
