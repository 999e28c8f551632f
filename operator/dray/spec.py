"""JobSpec: what a client may ask for. The one description behind HTTP, the record in Redis and the OpenAPI document.

Field names are Dray's JSON. Unknown fields are dropped and `null` counts as absent, as the original's decoder had it.
Every limit is a constant here, enforced by the model, shown in the OpenAPI document and listed in docs/api.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dray.errors import FieldError, Invalid

MAX_STEPS = 100
MAX_NAME = 1024  # characters
MAX_ENVIRONMENT = 1000  # variables in one list
MAX_VARIABLE = 131_000  # bytes of `variable=value`: Linux takes 128 KiB in one string of an environment
MAX_SOURCE = 512  # characters
MAX_PATH = 4095  # bytes, Linux's PATH_MAX without the final NUL
MAX_PATH_PART = 255  # bytes, Linux's NAME_MAX
MAX_DELIMITER = 4096  # bytes

# The grammar of an image reference: https://github.com/distribution/reference (regexp.go), read for its rules.
_HOST_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_HOST}/)?{_PATH_PART}(?:/{_PATH_PART})*(?::[\w][\w.-]{{0,127}})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{{32,}})?",
    re.ASCII,
)
_MASKED = ("/proc", "/sys", "/.dray", "/.dray-bin")


def _size(text: str) -> int:
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


def _output(text: str) -> str:
    if text in ("stdout", "stderr"):
        return text
    if not text.startswith("/"):
        raise ValueError("must be 'stdout', 'stderr' or an absolute path")
    parts = text.split("/")[1:]
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("must be the path of a file, without '.', '..' or empty parts")
    if _size(text) > MAX_PATH or any(_size(part) > MAX_PATH_PART for part in parts):
        raise ValueError(f"must be at most {MAX_PATH} bytes, each part at most {MAX_PATH_PART}")
    if any(text == place or text.startswith(place + "/") for place in _MASKED):
        raise ValueError(f"must not lie in {', '.join(_MASKED)}")
    return _no_nul(text)


def _delimiter(text: str) -> str:
    if "\n" in text:
        raise ValueError("must be one line")
    if _size(text) > MAX_DELIMITER:
        raise ValueError(f"must be at most {MAX_DELIMITER} bytes")
    return _no_nul(text)


Delimiter = Annotated[str, AfterValidator(_delimiter)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: object) -> object:
        if isinstance(given, Mapping):
            return {key: value for key, value in given.items() if value is not None}
        return given


class EnvVar(_Part):
    """One environment variable. Its value may be a secret: it appears in no log line and no error message."""

    variable: Annotated[str, Field(min_length=1), AfterValidator(_variable)]
    value: Annotated[str, AfterValidator(_no_nul)]

    @model_validator(mode="after")
    def _fits(self) -> EnvVar:
        if _size(self.variable) + _size(self.value) + 1 > MAX_VARIABLE:
            raise ValueError(f"variable and value together must be at most {MAX_VARIABLE} bytes")
        return self


Environment = Annotated[tuple[EnvVar, ...], Field(max_length=MAX_ENVIRONMENT, strict=False)]


class Step(_Part):
    """One step: an image, run with the step before's output as its stdin."""

    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    source: Annotated[str, Field(min_length=1, max_length=MAX_SOURCE), AfterValidator(_source)]
    environment: Environment = ()
    output: Annotated[str, AfterValidator(_output), Field(description="stdout, stderr or the absolute path of a file")] = "stdout"
    beginDelimiter: Delimiter = ""  # noqa: N815 (Dray's JSON)
    endDelimiter: Delimiter = ""  # noqa: N815
    refresh: bool = False

    @model_validator(mode="before")
    @classmethod
    def _empty_output_is_stdout(cls, given: object) -> object:
        if isinstance(given, Mapping) and given.get("output") == "":
            return {key: value for key, value in given.items() if key != "output"}
        return given

    @property
    def delimiters(self) -> tuple[str, str] | None:
        """Begin and end, where both are set and the output is a stream."""
        usable = self.beginDelimiter and self.endDelimiter and not self.output.startswith("/")
        return (self.beginDelimiter, self.endDelimiter) if usable else None


class JobSpec(_Part):
    """A job as a client posts it."""

    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=MAX_STEPS, strict=False)]
    environment: Environment = ()

    def environment_of(self, step: int) -> dict[str, str]:
        """The job's variables, then the step's: the later one of a name wins."""
        return {var.variable: var.value for var in (*self.environment, *self.steps[step].environment)}


def parse(given: Any) -> JobSpec:
    """The spec in a decoded JSON value. Raises `Invalid`, naming each field."""
    try:
        return JobSpec.model_validate(given)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        raise Invalid([FieldError(_path(fault["loc"]), _wording(fault)) for fault in faults if not _follows(fault, faults)]) from None


def _follows(fault: Any, faults: list[Any]) -> bool:
    """Whether a list is too short only because pydantic does not count its wrong entries."""
    where = fault["loc"]
    return fault["type"] == "too_short" and any(len(other["loc"]) > len(where) and other["loc"][: len(where)] == where for other in faults)


def _path(location: tuple[int | str, ...]) -> str:
    """`("steps", 0, "source")` → `steps[0].source`"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


_WORDING = {
    "missing": "is required",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "tuple_type": "must be an array",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "string_unicode": "must be valid Unicode",
}


def _wording(fault: Any) -> str:
    context = fault.get("ctx") or {}
    if fault["type"] == "value_error":
        return str(context["error"])
    wording = _WORDING.get(fault["type"])
    return wording.format(**context) if wording else str(fault["msg"])
