"""A job's record → its trace, through the OpenTelemetry library, which only this module needs: `traces.py` loads it where it is asked for."""

from __future__ import annotations

import hashlib
import re
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from dray import attempts
from dray.attempts import Attempt
from dray.record import Job, Phase, step_label

Attributes = dict[str, str | int]


class Spans:
    """Made here, sent by a thread of the library in batches; what cannot be sent is dropped, and its logger says so."""

    def __init__(self) -> None:
        told = Resource.create()
        named = not str(told.attributes["service.name"]).startswith("unknown_service")
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=told if named else told.merge(Resource({"service.name": "dray"})), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("dray", version("dray"))

    def add(self, job: Job) -> None:
        """The trace of a job that has ended."""
        self._ids.trace = trace_id(job.id)
        span = self._tracer.start_span("job", Context(), attributes=_of_job(job), start_time=_nanoseconds(job.created_at))
        if job.started_at is not None:
            span.add_event("started", timestamp=_nanoseconds(job.started_at))
        below = set_span_in_context(span, Context())
        for attempt in attempts.ended(job):
            label, began = step_label(job.spec, attempt.step), attempt.started_at or attempt.finished_at
            child = self._tracer.start_span(label, below, attributes=_of_attempt(job, attempt), start_time=_nanoseconds(began))
            _end(child, attempt.phase, attempt.reason, attempt.finished_at)
        _end(span, job.phase, job.reason, job.finished_at or job.created_at)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class _Ids(RandomIdGenerator):
    """A trace's id is its job's, so that one is found by the other."""

    trace = 0

    def generate_trace_id(self) -> int:
        return self.trace

    def is_trace_id_random(self) -> bool:
        return False


def trace_id(job_id: str) -> int:
    """The 32 hexadecimal digits that an id made by us or by Kubernetes has; else as many made from it."""
    digits = job_id.replace("-", "")
    return int(digits if re.fullmatch("[0-9A-Fa-f]{32}", digits) else hashlib.sha256(job_id.encode()).hexdigest()[:32], 16) or 1


def _of_job(job: Job) -> Attributes:
    return _known(
        {
            "dray.job.id": job.id,
            "dray.job.name": job.spec.name,
            "dray.job.steps": len(job.steps),
            "dray.job.status": job.phase.value,
            "dray.reason": job.reason and job.reason.value,
            "dray.job.output_bytes": job.output,
        }
    )


def _of_attempt(job: Job, attempt: Attempt) -> Attributes:
    return _known(
        {
            "dray.job.id": job.id,
            "dray.step.number": attempt.step + 1,
            "dray.step.name": job.spec.steps[attempt.step].name,
            "dray.step.attempt": attempt.number,
            "dray.step.status": attempt.phase.value,
            "container.image.name": job.image(attempt.step),
            "dray.reason": attempt.reason and attempt.reason.value,
            "process.exit.code": attempt.exit_code,
            "dray.step.bytes_in": attempt.bytes_in,
            "dray.step.bytes_out": attempt.bytes_out,
        }
    )


def _known(attributes: dict[str, str | int | None]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None and value != ""}


def _end(span: Span, phase: Phase, reason: str | None, finished_at: int) -> None:
    if phase is Phase.ERROR:
        span.set_status(Status(StatusCode.ERROR, reason))
    span.end(_nanoseconds(finished_at))


def _nanoseconds(microseconds: int) -> int:
    return microseconds * 1000
