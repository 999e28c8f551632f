"""Traces, as a collector receives them: over real HTTP, decoded from their protobuf."""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from dray import traces
from dray.errors import BadSetting
from dray.reason import Reason
from dray.record import Job, Past, Phase, StepState, new_job
from dray.spec import parse

JOB_ID = "0123ABCD-89AB-CDEF-0123-456789ABCDEF"
S = 10**6


class Collector:
    """An OTLP/HTTP receiver on a port of its own."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                received.append(ExportTraceServiceRequest.FromString(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> list[Span]:
        found = [span for request in self.received for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
        return sorted(found, key=lambda span: (span.start_time_unix_nano, -span.end_time_unix_nano))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
    yield found
    found.close()


def attributes(span: Any) -> dict[str, str | int]:
    return {pair.key: pair.value.string_value if pair.value.HasField("string_value") else pair.value.int_value for pair in span.attributes}


def job_of(**changes: Any) -> Job:
    """Its first step was tried twice; the second failed; it has a password in its environment."""
    step = {"source": "alpine", "environment": [{"variable": "PASSWORD", "value": "hunter2"}]}
    spec = parse({"name": "word", "steps": [step, {**step, "name": "count"}, step], "environment": [{"variable": "TOKEN", "value": "hunter2"}]})
    past = (Past(1, Reason.LOST, None, 3 * S, 4 * S),)
    steps = (
        StepState(Phase.COMPLETE, 2, exit_code=0, started_at=5 * S, finished_at=6 * S, bytes_in=0, bytes_out=12, past=past),
        StepState(Phase.ERROR, exit_code=3, started_at=7 * S, finished_at=8 * S, bytes_in=12, bytes_out=1),
        StepState(),
    )
    failed = replace(new_job(JOB_ID, spec, 1 * S), phase=Phase.ERROR, started_at=2 * S, finished_at=9 * S, reason=Reason.EXIT_CODE, failed=1, steps=steps)
    return replace(failed, message="hunter2", stderr=("hunter2",), **changes)


def export(job: Job, environment: Mapping[str, str]) -> None:
    with traces.exporting(environment):
        traces.observe(replace(job, phase=Phase.RUNNING), job)


def test_a_job_that_has_ended_is_a_span_with_one_below_it_for_each_attempt(collector: Collector) -> None:
    export(job_of(), {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    job, *attempts = collector.spans
    assert (job.name, job.parent_span_id, job.trace_id.hex()) == ("job", b"", JOB_ID.lower().replace("-", ""))
    assert (job.start_time_unix_nano, job.events[0].time_unix_nano, job.end_time_unix_nano) == (1 * 10**9, 2 * 10**9, 9 * 10**9)
    assert {(span.trace_id, span.parent_span_id) for span in attempts} == {(job.trace_id, job.span_id)}
    assert [(span.start_time_unix_nano // 10**9, span.end_time_unix_nano // 10**9) for span in attempts] == [(3, 4), (5, 6), (7, 8)]
    assert [span.name for span in attempts] == ["step 1 (alpine)", "step 1 (alpine)", "step 2 (count)"]
    failed, unset = Status.StatusCode.STATUS_CODE_ERROR, Status.StatusCode.STATUS_CODE_UNSET
    assert [span.status.code for span in (job, *attempts)] == [failed, failed, unset, failed]


def test_the_spans_say_what_the_record_says(collector: Collector) -> None:
    export(job_of(), {"OTEL_TRACES_EXPORTER": "otlp"})
    job, lost, again, last = map(attributes, collector.spans)
    assert job == {"dray.job.id": JOB_ID, "dray.job.name": "word", "dray.job.steps": 3, "dray.job.status": "error", "dray.reason": "exit_code"}
    step = {"dray.job.id": JOB_ID, "container.image.name": "alpine"}
    first = step | {"dray.step.number": 1}
    assert lost == first | {"dray.step.attempt": 1, "dray.step.status": "error", "dray.reason": "lost"}
    sizes = {"process.exit.code": 0, "dray.step.bytes_in": 0, "dray.step.bytes_out": 12}
    assert again == first | sizes | {"dray.step.attempt": 2, "dray.step.status": "complete"}
    sizes = {"process.exit.code": 3, "dray.step.bytes_in": 12, "dray.step.bytes_out": 1}
    more = {"dray.step.number": 2, "dray.step.name": "count", "dray.step.attempt": 1, "dray.step.status": "error", "dray.reason": "exit_code"}
    assert last == step | sizes | more


def test_nothing_of_environment_or_output_is_in_them(collector: Collector) -> None:
    export(job_of(), {"OTEL_TRACES_EXPORTER": "otlp"})
    assert collector.spans
    assert b"hunter2" not in b"".join(request.SerializeToString() for request in collector.received)


def test_steps_that_a_rerun_has_from_the_job_before_it_are_not_its(collector: Collector) -> None:
    export(job_of(origin="OTHER", created_at=int(6.5 * S)), {"OTEL_TRACES_EXPORTER": "otlp"})
    assert [span.name for span in collector.spans] == ["job", "step 2 (count)"]


def test_only_the_save_that_ends_a_job_makes_its_trace(collector: Collector) -> None:
    job, running = job_of(), job_of(phase=Phase.RUNNING)
    with traces.exporting({"OTEL_TRACES_EXPORTER": "otlp"}):
        for before, after in ((None, job), (running, running), (job, job), (running, job)):
            traces.observe(before, after)
    assert [span.name for span in collector.spans].count("job") == 1


@pytest.mark.parametrize(("variable", "value", "name"), [(None, "", "dray"), ("OTEL_SERVICE_NAME", "mine", "mine")])
def test_the_service_is_dray_unless_it_is_named(collector: Collector, monkeypatch: pytest.MonkeyPatch, variable: str | None, value: str, name: str) -> None:
    if variable:
        monkeypatch.setenv(variable, value)
    export(job_of(), {"OTEL_TRACES_EXPORTER": "otlp"})
    assert attributes(collector.received[0].resource_spans[0].resource)["service.name"] == name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_SERVICE_NAME": "dray"},
    ],
)
def test_without_its_variables_nothing_is_sent(collector: Collector, changes: dict[str, str]) -> None:
    export(job_of(), changes)
    assert collector.received == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: must be otlp or none, not 'zipkin'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf, not 'grpc'"),
    ],
)
def test_what_cannot_be_done_is_said_at_the_start(changes: dict[str, str], says: str) -> None:
    with pytest.raises(BadSetting, match=says), traces.exporting(changes):
        pass


def test_a_missing_extra_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "dray.spans"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(BadSetting, match=r"pip install 'dray\[otel\]'"), traces.exporting({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}):
        pass
