"""All settings, read once from the command line and the environment into one frozen object. docs/configuration.md lists them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from dray import fields
from dray.errors import BadSetting
from dray.fields import NO_LIMITS, Limits

LOG_LEVELS = ("panic", "fatal", "error", "warn", "info", "debug")
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


class Runs(StrEnum):
    """What an operator's jobs run on."""

    DOCKER = "docker"
    KUBERNETES = "kubernetes"


class Drain(StrEnum):
    """What an operator that is told to stop does about its jobs."""

    HANDOVER = "handover"  # leaves them to whoever comes next; their steps go on meanwhile
    FINISH = "finish"  # begins none, and ends when the last has ended


@dataclass(frozen=True)
class Settings:
    """`redis_url` None: `dray serve` starts a Redis of its own in `data_dir`. Sizes in bytes, times in seconds.

    `images`, `host_paths`: what jobs may use, empty: any image, and no path. `limits`, `limits_max`: of a step that names
    none, and of any step. `sandboxes`: made ahead. `lease`: how long an operator that says nothing keeps its jobs;
    `takeover`: how much later one on another engine takes them (0: never). `keep_outputs`: up to which size outputs
    that are passed on are kept with the job. `keep_time`, `keep_jobs`: when finished jobs are removed (None: never).
    `kubernetes`: whether DrayJobs are dealt with, in `namespaces` (empty: all); `mirror_jobs`: the namespace in which
    jobs that came another way are shown; `leader_lease`: the Lease that says which replica deals with them (None: one of
    its own making). `plain_registries`: asked without TLS; `registry_ca`: signs for registries besides
    the system's authorities.

    `backend`: what jobs run on. Of Kubernetes: `image` has the runner; `job_namespace` is where jobs run that name none
    (None: the operator's own), `job_namespaces` are those that they may name; `root`: whether they may ask for images
    that run as root; `pending`: how long nothing may change about a pod that is not up.
    """

    host: str = "127.0.0.1"
    port: int = 3000
    data_dir: Path = Path("dray-data")
    redis_url: str | None = None
    outputs: str = ""
    token: str | None = None
    no_auth: bool = False
    allowed_hosts: tuple[str, ...] = ()
    log_level: str = "info"
    jobs: int = 4
    ahead: int = 8
    log_cap: int = 16 * 2**20
    data_cap: int = 64 * 2**30
    input_cap: int = 64 * 2**30
    disk_floor: int = 2**30
    images: tuple[str, ...] = ()
    host_paths: tuple[str, ...] = ()
    secrets_dir: Path | None = None
    limits: Limits = NO_LIMITS
    limits_max: Limits = NO_LIMITS
    grace: float = 10.0
    sandboxes: int = 2
    lease: float = 15.0
    takeover: float = 60.0
    drain: Drain = Drain.HANDOVER
    keep_outputs: int = 64 * 2**10
    keep_time: float | None = None
    keep_jobs: int | None = None
    metrics_port: int | None = None
    kubernetes: bool = False
    namespaces: tuple[str, ...] = ()
    mirror_jobs: str | None = None
    leader_lease: str | None = None
    plain_registries: tuple[str, ...] = ()
    registry_ca: Path | None = None
    backend: Runs = Runs.DOCKER
    image: str | None = None
    job_namespace: str | None = None
    job_namespaces: tuple[str, ...] = ()
    root: bool = False
    pending: float = 300.0

    @property
    def outputs_url(self) -> str:
        """Where outputs too large for Redis are kept."""
        return self.outputs or (self.data_dir.absolute() / "outputs").as_uri()

    @property
    def loopback(self) -> bool:
        """Whether the API listens to this machine only."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def checked(self) -> Settings:
        """Itself. Raises BadSetting where the settings together are unsafe, or make no sense."""
        if not self.kubernetes and (self.namespaces or self.mirror_jobs):
            raise BadSetting("--namespaces and --mirror-jobs say more of --kubernetes, which is missing")
        if self.backend is Runs.KUBERNETES and not self.image:
            raise BadSetting("--backend kubernetes needs --image or DRAY_IMAGE: Dray's own image, which has the runner for the jobs' pods")
        if not self.loopback and self.token is None and not self.no_auth:
            raise BadSetting(
                f"--host {self.host} listens beyond this machine: set DRAY_TOKEN, which clients then send as 'Authorization: Bearer …', or say --no-auth"
            )
        return self


def from_environment(environment: Mapping[str, str], **given: object) -> Settings:
    """Settings from the environment; what the command line gave (not None) wins. Raises BadSetting, naming the variable."""
    found: dict[str, object] = {"jobs": 2 * (os.cpu_count() or 1)}
    for variable, (name, parse) in VARIABLES.items():
        text = environment.get(variable, "")
        if text:
            found[name] = _parsed(variable, text, parse)
    if not found.get("redis_url") and environment.get("REDIS_PORT"):
        found["redis_url"] = _parsed("REDIS_PORT", environment["REDIS_PORT"], _link)
    found.update({name: value for name, value in given.items() if value is not None})
    return Settings(**found).checked()  # type: ignore[arg-type]


def log_level(environment: Mapping[str, str]) -> tuple[str, str | None]:
    """LOG_LEVEL's value, and what to report where it is none of the six: then it is `info`."""
    level = environment.get("LOG_LEVEL", "").lower() or "info"
    if level in LOG_LEVELS:
        return level, None
    return "info", f"LOG_LEVEL {level!r} is none of {', '.join(LOG_LEVELS)}: using info"


def _parsed(variable: str, text: str, parse: Callable[[str], object]) -> object:
    try:
        return parse(text)
    except ValueError as error:
        raise BadSetting(f"{variable}: {error}") from None


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError(f"must be a whole number, not {text!r}")
    return int(text)


def _positive(text: str) -> int:
    count = _count(text)
    if count == 0:
        raise ValueError("must be at least 1")
    return count


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,18})\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise ValueError(f"must be a size such as 1048576, 16MiB or 2GiB, not {text!r}")
    return int(found[1]) * _UNITS[found[2]]


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([smhd]?)", text.strip().lower())
    if not found:
        raise ValueError(f"must be a time such as 90, 0.5, 15m, 12h or 30d, not {text!r}")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def _lease(text: str) -> float:
    seconds = _seconds(text)
    if not 1 <= seconds <= 3600:
        raise ValueError("must be from 1s to 1h")
    return seconds


def _listening(text: str) -> int:
    port = _count(text)
    if port > 65535:
        raise ValueError("must be a port, 0 to 65535")
    return port


def _limits(text: str) -> Limits:
    """`cpu=500m,memory=256Mi,pids=100`, each of the three at most once."""
    parsers: dict[str, Callable[[str], int]] = {"cpu": fields.millis, "memory": fields.octets, "pids": _positive}
    found: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if name not in parsers or not equals or name in found:
            raise ValueError(f"must be such as cpu=500m,memory=256Mi,pids=100, not {text!r}")
        try:
            found[name] = parsers[name](value)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    return Limits(**found)


def _drain(text: str) -> Drain:
    if text not in list(Drain):
        raise ValueError(f"must be {' or '.join(Drain)}, not {text!r}")
    return Drain(text)


def _runs(text: str) -> Runs:
    if text not in list(Runs):
        raise ValueError(f"must be {' or '.join(Runs)}, not {text!r}")
    return Runs(text)


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"must be yes or no, not {text!r}")
    return text == "yes"


def _folders(text: str) -> tuple[str, ...]:
    paths = tuple(path.strip().rstrip("/") or "/" for path in text.split(",") if path.strip())
    for path in paths:
        if not path.startswith("/") or any(part in (".", "..") for part in path.split("/")):
            raise ValueError(f"must be absolute paths, separated by commas, not {path!r}")
    return paths


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())


def _redis_url(text: str) -> str:
    if urlsplit(text).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must be redis://host:port/db, rediss://… or unix:///path")
    return text


def _link(text: str) -> str:
    """Docker's link form, `tcp://host:port`."""
    parts = urlsplit(text)
    if parts.scheme != "tcp" or not parts.hostname or not parts.port:
        raise ValueError(f"must be tcp://host:port, not {text!r}")
    return f"redis://{parts.netloc}"


def _token(text: str) -> str:
    if len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be at least 16 printable ASCII characters without blanks")
    return text


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


VARIABLES: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "REDIS_URL": ("redis_url", _redis_url),
    "DRAY_DATA_DIR": ("data_dir", Path),
    "DRAY_OUTPUTS": ("outputs", str),
    "DRAY_TOKEN": ("token", _token),
    "DRAY_HOSTS": ("allowed_hosts", _hosts),
    "DRAY_JOBS": ("jobs", _positive),
    "DRAY_AHEAD": ("ahead", _count),
    "DRAY_LOG_CAP": ("log_cap", _size),
    "DRAY_DATA_CAP": ("data_cap", _size),
    "DRAY_INPUT_CAP": ("input_cap", _size),
    "DRAY_DISK_FLOOR": ("disk_floor", _size),
    "DRAY_IMAGES": ("images", _patterns),
    "DRAY_HOST_PATHS": ("host_paths", _folders),
    "DRAY_SECRETS": ("secrets_dir", Path),
    "DRAY_LIMITS": ("limits", _limits),
    "DRAY_LIMITS_MAX": ("limits_max", _limits),
    "DRAY_GRACE": ("grace", _seconds),
    "DRAY_SANDBOXES": ("sandboxes", _count),
    "DRAY_LEASE": ("lease", _lease),
    "DRAY_TAKEOVER": ("takeover", _seconds),
    "DRAY_DRAIN": ("drain", _drain),
    "DRAY_KEEP_OUTPUTS": ("keep_outputs", _size),
    "DRAY_KEEP_TIME": ("keep_time", _seconds),
    "DRAY_KEEP_JOBS": ("keep_jobs", _count),
    "DRAY_BACKEND": ("backend", _runs),
    "DRAY_IMAGE": ("image", str),
    "DRAY_JOB_NAMESPACE": ("job_namespace", str),
    "DRAY_JOB_NAMESPACES": ("job_namespaces", _patterns),
    "DRAY_ROOT": ("root", _yes),
    "DRAY_PENDING": ("pending", _seconds),
    "DRAY_METRICS_PORT": ("metrics_port", _listening),
    "DRAY_LEADER_LEASE": ("leader_lease", str),
    "DRAY_PLAIN_REGISTRIES": ("plain_registries", _hosts),
    "DRAY_REGISTRY_CA": ("registry_ca", Path),
}
