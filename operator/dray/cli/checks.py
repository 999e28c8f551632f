"""`dray doctor`: what keeps Dray from working, one line each, and how to mend it. Nothing is changed, and nothing is started."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from dray import runner, settings
from dray.client.api import Api, cause, is_local
from dray.client.config import Connection
from dray.client.errors import Failed, Refused, Unreachable
from dray.client.text import shown
from dray.embedded import socket_in
from dray.errors import BadSetting, Unavailable
from dray.settings import Settings
from dray.store import Store

_WITHIN = 5  # seconds for an answer


class Bad(Exception):
    """What is wrong, and how to mend it."""


class Check(NamedTuple):
    """`look` says what it found, or raises Bad."""

    name: str
    look: Callable[[], str]


def main(connection: Callable[[], Connection]) -> int:
    return report(_checks(connection))


def report(checks: Iterable[Check]) -> int:
    """Exit codes: 0 all is well, 1 something is not."""
    wrong = False
    for check in checks:
        try:
            verdict, text = "ok", check.look()
        except (Bad, BadSetting) as error:
            verdict, text, wrong = "bad", str(error), True
        print(f"{verdict:3}  {check.name:11}  {shown(' '.join(text.split()), sys.stdout)}")
    return 1 if wrong else 0


def _checks(connection: Callable[[], Connection]) -> Iterator[Check]:
    """Of a server elsewhere, only what can be seen from here."""
    try:
        server, given = connection(), settings.from_environment(os.environ)
    except BadSetting as error:
        yield failing("settings", str(error))
        return
    if is_local(server.server):
        yield Check("engine", _engine)
        yield Check("images", _images)
        yield Check("runner", _runner)
        yield Check("Redis", partial(_redis, given))
        yield Check("permissions", partial(_permissions, given))
    yield Check("port", partial(_port, server))
    yield Check("token", partial(token, server))


def failing(name: str, text: str) -> Check:
    """One that is known to be bad."""

    def look() -> str:
        raise Bad(text)

    return Check(name, look)


# --- this machine


def _engine() -> str:
    found = _asked_engine().version()
    return f"{found['Platform']['Name'] if found.get('Platform') else 'engine'} {found['Version']} at {_docker_host()}"


def _images() -> str:
    """The engine's, and whether it is known how to log in to registries."""
    count = len(_same_engine().images())
    file = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        if not isinstance(json.loads(file.read_bytes()), dict):
            raise ValueError("no object")
    except FileNotFoundError:
        return f"{count} on the engine, others are pulled without a login"
    except PermissionError:
        raise Bad(f"{file} cannot be read, so private images cannot be pulled: make it readable for this user, or set DOCKER_CONFIG") from None
    except (OSError, ValueError) as error:
        raise Bad(f"{file} is no JSON ({error}), so images cannot be pulled: mend or remove it") from None
    return f"{count} on the engine, others are pulled with the logins in {file}"


def _runner() -> str:
    """It is built for this machine, and runs on the engine's."""
    octets, here = len(runner.binary()), runner.architecture()
    there = _same_engine().version()["Arch"]
    if here != there:
        raise Bad(f"the runner is built for {here}, the engine runs {there}: install Dray on a machine like the engine's")
    return f"{octets} bytes for {there}"


def _redis(given: Settings) -> str:
    if given.redis_url is None:
        program = shutil.which("redis-server")
        if program is None:
            raise Bad("redis-server is not installed: apt install redis-server, or set REDIS_URL to a Redis that runs")
        return f"dray serve starts {program}"
    weaknesses = asyncio.run(_weaknesses(given.redis_url))
    if weaknesses:
        raise Bad("; ".join(weaknesses))
    return "the one of REDIS_URL answers"


async def _weaknesses(url: str) -> list[str]:
    store = Store(url)
    try:
        async with asyncio.timeout(_WITHIN):
            await store.ping()
            return await store.weaknesses()
    except (Unavailable, TimeoutError) as error:
        raise Bad(f"the one of REDIS_URL does not answer ({error}): start it, or mend REDIS_URL") from None
    finally:
        await store.close()


def _permissions(given: Settings) -> str:
    """Of the data directory, and of the folder of secrets."""
    folder = given.data_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise Bad(f"this user cannot write in {existing}: chown it, or name another folder by DRAY_DATA_DIR")
    if given.redis_url is None:
        socket_in(folder)
    if given.secrets_dir is not None and not os.access(given.secrets_dir, os.R_OK | os.X_OK):
        raise Bad(f"this user cannot read the secrets in {given.secrets_dir}: chown it, or mend DRAY_SECRETS")
    return f"data can be kept in {folder}"


def _docker_host() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def _asked_engine() -> docker.APIClient:
    """One that answers. Raises Bad."""
    try:
        return docker.APIClient(timeout=_WITHIN, version="auto", **kwargs_from_env())
    except (DockerException, requests.RequestException, TypeError, OSError) as error:
        text = cause(error)
    if _refused(_docker_host()):
        raise Bad(f"this user may not use {_docker_host()}: sudo usermod -aG docker $USER and log in again")
    raise Bad(f"none at {_docker_host()} ({text}): install or start it (systemctl start docker), or mend DOCKER_HOST")


def _same_engine() -> docker.APIClient:
    """The same, for who looks after `_engine` has told what is wrong."""
    try:
        return _asked_engine()
    except Bad:
        raise Bad("not looked at: no engine answers") from None


def _refused(host: str) -> bool:
    path = urlsplit(host).path
    return host.startswith("unix:") and Path(path).exists() and not os.access(path, os.R_OK | os.W_OK)


# --- the server


def _port(connection: Connection) -> str:
    """Dray is there, or could be."""
    try:
        found: Any = Api(connection).health()
        if found == {"status": "ok"}:
            return f"Dray answers at {connection.server}"
    except Unreachable as error:
        if is_local(connection.server) and not _listens(connection.server):
            return f"{connection.server} is free: dray serve starts Dray there"
        raise Bad(f"{error}: start Dray there, or mend DRAY_SERVER") from None
    except Failed:
        pass
    raise Bad(f"{connection.server} is something else's: stop that, or give dray serve another --port and set DRAY_SERVER")


def _listens(server: str) -> bool:
    parts = urlsplit(server)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), _WITHIN):
            return True
    except OSError:
        return False


def token(connection: Connection) -> str:
    """Whether the server takes it."""
    if connection.warning:
        raise Bad(connection.warning)
    try:
        Api(connection).page({}, 1)
    except Refused as error:
        raise Bad(f"{error.status}: {error}: set DRAY_TOKEN to the server's") from None
    except Failed as error:
        return f"{'there is one' if connection.token else 'none'}; not tried ({error})"
    return "the server takes it" if connection.token else "the server wants none"
