"""Traces for OpenTelemetry, where its environment variables ask for them: a span for each job, and below it one for each attempt of a step.

They are made when a job's end is saved, and from its record alone: whole and right whoever worked on the job, and
however often an operator died meanwhile. Needs the extra `dray[otel]`. No value of any environment is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from dray.errors import BadSetting
from dray.record import FINAL, Job

if TYPE_CHECKING:
    from dray.spans import Spans

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_spans: ContextVar[Spans | None] = ContextVar("dray.traces", default=None)


@contextmanager
def exporting(environment: Mapping[str, str]) -> Iterator[None]:
    """Export the jobs of which `observe` is told within, where the environment asks for it; at the end what is left is sent.

    The library reads the rest of its variables from the process's own environment. Raises BadSetting.
    """
    if not _wanted(environment):
        yield
        return
    spans = _load()
    token = _spans.set(spans)
    try:
        yield
    finally:
        _spans.reset(token)
        spans.close()


def observe(before: Job | None, after: Job) -> None:
    """A job was saved; unknown before: it tells nothing."""
    spans = _spans.get()
    if spans is not None and before is not None and after.phase in FINAL and before.phase not in FINAL:
        spans.add(after)


def _wanted(environment: Mapping[str, str]) -> bool:
    """Raises BadSetting where another exporter is asked for than the one there is."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise BadSetting(f"OTEL_TRACES_EXPORTER: must be otlp or none, not {exporter!r}")
    if not exporter and not any(environment.get(name) for name in _ENDPOINTS):
        return False
    name, protocol = next(((name, environment[name]) for name in _PROTOCOLS if environment.get(name)), ("", "http/protobuf"))
    if protocol != "http/protobuf":
        raise BadSetting(f"{name}: must be http/protobuf, not {protocol!r}")
    return True


def _load() -> Spans:
    """Raises BadSetting where the extra is not installed."""
    try:
        from dray.spans import Spans  # noqa: PLC0415 (not everybody has what it needs)
    except ModuleNotFoundError as error:
        raise BadSetting(
            f"OTEL_… variables ask for traces, but {error.name} is not installed: pip install 'dray[otel]', or set OTEL_TRACES_EXPORTER=none"
        ) from None
    return Spans()
