"""The kinds of value that a job's fields take, each with its grammar and limits. `spec.py` puts them together.

Every limit is a constant here, enforced by the model, shown in the OpenAPI document and listed in docs/api.md.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, WithJsonSchema

MAX_STEPS = 100
MAX_NAME = 1024  # characters
MAX_ENVIRONMENT = 1000  # variables in one list
MAX_VARIABLE = 131_000  # bytes of `variable=value`: Linux takes 128 KiB in one string of an environment
MAX_SOURCE = 512  # characters
MAX_PATH = 4095  # bytes, Linux's PATH_MAX without the final NUL
MAX_PATH_PART = 255  # bytes, Linux's NAME_MAX
MAX_DELIMITER = 4096  # bytes
MAX_WORDS = 1000  # of a command or its arguments
MAX_TIMEOUT = 30 * 86_400  # seconds
MAX_TIME_TO_LIVE = 2**31 - 1  # seconds, as of a Kubernetes Job
MAX_RETRIES = 10
MAX_MOUNTS = 32
MAX_LABELS = 64
MIN_MEMORY = 6 * 2**20  # bytes: Docker gives a container no less
MAX_CPU = 1024  # cores
MAX_PIDS = 4_194_304  # Linux's PID_MAX_LIMIT

# The grammar of an image reference: https://github.com/distribution/reference (regexp.go), read for its rules.
_HOST_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_HOST}/)?{_PATH_PART}(?:/{_PATH_PART})*(?::[\w][\w.-]{{0,127}})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{{32,}})?",
    re.ASCII,
)
_MASKED = ("/proc", "/sys", "/.dray", "/.dray-bin")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")  # of a secret, a volume, a network
_LABEL_KEY = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_DNS_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")  # of an object in a cluster
_CPU = re.compile(r"([0-9]{1,7})m|([0-9]{1,4}(?:\.[0-9]{1,3})?)")
_MEMORY = re.compile(r"([0-9]{1,15})(|[kMGT]|[KMGT]i)")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode())


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _variable(text: str) -> str:
    if "=" in text:
        raise ValueError("must not contain '='")
    return _no_nul(text)


def _source(text: str) -> str:
    if not _REFERENCE.fullmatch(text):
        raise ValueError(
            "must be an image reference such as 'ubuntu', 'ubuntu:22.04' or 'registry.example:5000/team/app@sha256:…' (repository in lower case, no blanks)"
        )
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("must be an absolute path")
    parts = text.split("/")[1:]
    if text != "/" and any(part in ("", ".", "..") for part in parts):
        raise ValueError("must be a path without '.', '..' or empty parts")
    if size(text) > MAX_PATH or any(size(part) > MAX_PATH_PART for part in parts):
        raise ValueError(f"must be at most {MAX_PATH} bytes, each part at most {MAX_PATH_PART}")
    return _no_nul(text)


def _unmasked(text: str) -> str:
    """An absolute path where a step may have a file or a mount."""
    if any(text == place or text.startswith(place + "/") for place in _MASKED):
        raise ValueError(f"must not lie in {', '.join(_MASKED)}")
    return text


def _not_root(text: str) -> str:
    if text == "/":
        raise ValueError("must not be '/'")
    return text


def _output(text: str) -> str:
    if text in ("stdout", "stderr"):
        return text
    if not text.startswith("/"):
        raise ValueError("must be 'stdout', 'stderr' or an absolute path")
    if any(part in ("", ".", "..") for part in text.split("/")[1:]):
        raise ValueError("must be the path of a file, without '.', '..' or empty parts")
    return _unmasked(_absolute(text))


def _delimiter(text: str) -> str:
    if "\n" in text:
        raise ValueError("must be one line")
    if size(text) > MAX_DELIMITER:
        raise ValueError(f"must be at most {MAX_DELIMITER} bytes")
    return _no_nul(text)


def _word(text: str) -> str:
    if size(text) > MAX_VARIABLE:
        raise ValueError(f"must be at most {MAX_VARIABLE} bytes")
    return _no_nul(text)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("must be letters, digits, '_', '.' and '-', at most 63, the first a letter or digit")
    return text


def _dns_name(text: str) -> str:
    if not _DNS_NAME.fullmatch(text):
        raise ValueError("must be a name in a cluster: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit")
    return text


def _network(text: str) -> str:
    if text == "host":
        raise ValueError("must not be 'host': a job has a network of its own")
    return _name(text)


def _label_key(text: str) -> str:
    if not _LABEL_KEY.fullmatch(text):
        raise ValueError("must be named as Kubernetes labels are: at most 63 letters, digits, '-', '_' and '.', with a DNS name and '/' before them if need be")
    return text


def _label_value(text: str) -> str:
    if not _LABEL_VALUE.fullmatch(text):
        raise ValueError("must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
    return text


class Limits(NamedTuple):
    """Of one container: thousandths of a core, bytes, processes and threads. None: none."""

    cpu: int | None = None
    memory: int | None = None
    pids: int | None = None


NO_LIMITS = Limits()


def millis(cpu: str | float) -> int:
    """Thousandths of a core. Raises ValueError."""
    found = _CPU.fullmatch(cpu) if isinstance(cpu, str) else None
    if isinstance(cpu, str) and found is None:
        raise ValueError("must be a number of cores such as 0.5, or thousandths of one such as '500m'")
    count = int(found[1]) if found is not None and found[1] else round(1000 * float(cpu))
    if not 1 <= count <= 1000 * MAX_CPU:
        raise ValueError(f"must be from 1m to {MAX_CPU} cores")
    return count


def octets(memory: str | int) -> int:
    """Bytes. Raises ValueError."""
    found = _MEMORY.fullmatch(str(memory))
    if found is None:
        raise ValueError("must be a number of bytes such as 67108864, '64Mi' or '2G'")
    count = int(found[1]) * _UNITS[found[2]]
    if not MIN_MEMORY <= count <= 2**50:
        raise ValueError(f"must be from {MIN_MEMORY // 2**20}Mi to 1024Ti")
    return count


def _cpu(given: Any) -> Any:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise ValueError("must be a number or a string")
    millis(given)
    return given


def _memory(given: Any) -> Any:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError("must be a whole number or a string")
    octets(given)
    return given


Name = Annotated[str, Field(max_length=MAX_NAME)]
Variable = Annotated[str, Field(min_length=1), AfterValidator(_variable)]
Value = Annotated[str, AfterValidator(_no_nul)]
Source = Annotated[str, Field(min_length=1, max_length=MAX_SOURCE), AfterValidator(_source)]
Output = Annotated[str, AfterValidator(_output), Field(description="stdout, stderr or the absolute path of a file")]
Delimiter = Annotated[str, AfterValidator(_delimiter)]
Word = Annotated[str, AfterValidator(_word)]
Words = Annotated[tuple[Word, ...], Field(max_length=MAX_WORDS, strict=False)]
Path = Annotated[str, AfterValidator(_absolute)]
MountPath = Annotated[str, AfterValidator(_absolute), AfterValidator(_not_root), AfterValidator(_unmasked)]
DnsName = Annotated[str, AfterValidator(_dns_name)]
ShortName = Annotated[str, AfterValidator(_name)]
Network = Annotated[str, AfterValidator(_network)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
LabelValue = Annotated[str, AfterValidator(_label_value)]
Seconds = Annotated[float, Field(gt=0, le=MAX_TIMEOUT, allow_inf_nan=False)]
Cpu = Annotated[Any, AfterValidator(_cpu), WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": _CPU.pattern}]})]
Memory = Annotated[Any, AfterValidator(_memory), WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": _MEMORY.pattern}]})]
