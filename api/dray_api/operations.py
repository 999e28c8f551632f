"""Each route as the OpenAPI document describes it: its parameters and its answers."""

from __future__ import annotations

from typing import Any

from dray.fields import MAX_LABELS, MAX_NAME
from dray.spec import JobSpec
from dray_api import params, problems
from dray_api.shapes import Health, JobRecord, Listed, Log, LogLine, Posted, Problem, Summary, ref


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problems(**described: str) -> dict[int | str, dict[str, Any]]:
    """`_404="no such job"` and so on, and those of every route."""
    every = {"_400": "no Host header, or more than one", "_403": "Host or Origin of another site", "_500": "an internal error"}
    found = sorted({**every, **described}.items())
    return {int(code[1:]): {"description": words, "content": {problems.MEDIA_TYPE: {"schema": ref(Problem)}}} for code, words in found}


def _query(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_401 = "DRAY_TOKEN is set and was not sent"
_404 = "no such job"
_503 = "Redis does not answer: ask again after Retry-After seconds"
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_STEP = {"name": "step", "in": "path", "required": True, "description": "counted from 1", "schema": {"type": "integer", "minimum": 1}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "the same request under the same key makes one job, for a day; another request under it is refused",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_PREFLIGHT = _query("preflight", "have an operator find all images and secrets first, and pin the images to their digests", type="boolean", default=False)
_JOB = {"name": "Dray-Job", "in": "header", "required": True, "description": "the job in JSON, on one line", "schema": {"type": "string"}}
_WAIT = _query("wait", "false: answer as POST /jobs does, once the body is there", type="boolean", default=True)
_ALWAYS = _query("always", "stop the steps marked always too", type="boolean", default=False)
_LISTING = [
    _query("limit", "jobs at most", type="integer", minimum=1, maximum=params.MAX_PAGE, default=100),
    _query("cursor", "where to go on: from a Link header", type="string", pattern="^[0-9]{1,15}$"),
    _query("status", "only those with it", type="string", enum=["running", "complete", "error"]),
    _query("name", "only those called so", type="string", minLength=1, maxLength=MAX_NAME),
    _query("label", "KEY or KEY=VALUE; all that are given must hold", type="array", maxItems=MAX_LABELS, items={"type": "string", "pattern": "^[^=]"}),
    _query("order", "by arrival", type="string", enum=["oldest", "newest"], default="oldest"),
]
_INDEX = _query("index", "first line, from 0; a negative one counts from the end; what is no whole number is 0", type="integer", default=0)
_LIMIT = _query("limit", "lines at most; without it: all", type="integer", minimum=1)
_LAST = {"name": "Last-Event-ID", "in": "header", "description": "go on after this line", "schema": {"type": "integer", "minimum": 0}}
_FROM = _query("from", "the step to begin with, counted from 1", type="integer", minimum=1, default=1)
_BODY = {"required": True, "description": "JSON, whatever its Content-Type", "content": {"application/json": {"schema": ref(JobSpec)}}}
_LOCATION = {"Location": {"description": "the job's path", "schema": {"type": "string"}}}
_LINK = {"Link": {"description": 'the next page, `rel="next"`; only where there is one', "schema": {"type": "string"}}}
_OCTETS = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_OUTPUT = {"Content-Location": {"description": "the output's path, with the job's id", "schema": {"type": "string"}}}
_FOLLOWED = {"text/event-stream": {"schema": {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(LogLine)}}}

OPERATIONS: dict[str, dict[str, Any]] = {
    "create": {
        "summary": "Post a job",
        "responses": {201: _json("taken: it runs from now on", ref(Posted)) | {"headers": _LOCATION}}
        | _problems(
            _400="the body is no JSON",
            _401=_401,
            _413="the body is over the limit",
            _422="no job, or one that is not allowed or cannot run here: errors names each field; or the Idempotency-Key came with another request",
            _503=_503,
        ),
        "openapi_extra": {"parameters": [_PREFLIGHT, _KEY], "requestBody": _BODY},
    },
    "filter": {
        "summary": "Run a job as a filter: the body is its input, the answer its output",
        "responses": {200: {"description": "what the last step passed on", "content": _OCTETS, "headers": _OUTPUT}, 201: _json("wait=false", ref(Posted))}
        | _problems(
            _400="Dray-Job is missing, or no JSON",
            _401=_401,
            _404="the job was deleted meanwhile",
            _413="the body is over the limit (DRAY_INPUT_CAP)",
            _422="as of POST /jobs; or, with job, the job failed by its own fault or was cancelled",
            _502="with job: the job failed by the fault of what it ran on",
            _503=_503,
            _507="the output store has no room for the body",
        ),
        "openapi_extra": {"parameters": [_JOB, _WAIT, _PREFLIGHT, _KEY], "requestBody": {"description": "the first step's stdin", "content": _OCTETS}},
    },
    "listing": {
        "summary": "The ids of all jobs, oldest first; with any parameter, a page of summaries",
        "responses": {
            200: _json("the list", {"anyOf": [{"type": "array", "items": ref(Listed)}, {"type": "array", "items": ref(Summary)}]}) | {"headers": _LINK}
        }
        | _problems(_401=_401, _422="a parameter is not as it should be", _503=_503),
        "openapi_extra": {"parameters": _LISTING},
    },
    "show": {
        "summary": "How far a job is",
        "responses": {200: _json("the job", ref(JobRecord))} | _problems(_401=_401, _404=_404, _503=_503),
        "openapi_extra": {"parameters": [_ID]},
    },
    "spec": {
        "summary": "The job as it was posted, with its environment",
        "responses": {200: _json("the job", ref(Posted))} | _problems(_401=_401, _404=_404, _503=_503),
        "openapi_extra": {"parameters": [_ID]},
    },
    "input": {
        "summary": "The input that came with a job by POST /filter",
        "responses": {200: {"description": "the bytes", "content": _OCTETS}}
        | _problems(_401=_401, _404="no such job, or it came without an input, or that is not in the output store", _503=_503),
        "openapi_extra": {"parameters": [_ID]},
    },
    "log": {
        "summary": "The lines that a job's steps wrote; with Accept: text/event-stream, as they come",
        "responses": {200: {"description": "the lines", "content": {"application/json": {"schema": ref(Log)}, **_FOLLOWED}}}
        | _problems(_401=_401, _404=_404, _422="limit is no whole number of at least 1", _503=_503),
        "openapi_extra": {"parameters": [_ID, _INDEX, _LIMIT, _LAST]},
    },
    "output": {
        "summary": "What a complete job's last step passed on",
        "responses": {200: {"description": "the bytes", "content": _OCTETS}}
        | _problems(_401=_401, _404="no such job, or its output is not in the output store", _409="the job still runs, or failed", _503=_503),
        "openapi_extra": {"parameters": [_ID]},
    },
    "step_output": {
        "summary": "What one step passed on, while it is kept",
        "responses": {200: {"description": "the bytes", "content": _OCTETS}}
        | _problems(_401=_401, _404="no such job or step, or its output is not there or not kept", _503=_503),
        "openapi_extra": {"parameters": [_ID, _STEP]},
    },
    "cancel": {
        "summary": "Stop a job",
        "responses": {200: _json("it had not begun, and has ended by this", ref(JobRecord)), 202: _json("it is being stopped", ref(JobRecord))}
        | _problems(_401=_401, _404=_404, _409="it has already ended", _422="always is neither true nor false", _503=_503),
        "openapi_extra": {"parameters": [_ID, _ALWAYS]},
    },
    "rerun": {
        "summary": "The same job once more, from its first step or a later one",
        "responses": {201: _json("a new job: it runs from now on", ref(Posted)) | {"headers": _LOCATION}}
        | _problems(
            _401=_401,
            _404=_404,
            _409="the output to go on from is not kept",
            _422="from is none of the steps, the job is no longer allowed, or the Idempotency-Key came with another request",
            _503=_503,
        ),
        "openapi_extra": {"parameters": [_ID, _FROM, _KEY]},
    },
    "delete": {
        "summary": "Delete what is recorded of a job",
        "responses": {204: {"description": "gone"}} | _problems(_401=_401, _404=_404, _503=_503),
        "openapi_extra": {"parameters": [_ID]},
    },
    "healthz": {
        "summary": "The process is alive",
        "responses": {200: _json("alive", ref(Health))} | _problems(),
        "openapi_extra": {"security": []},
    },
    "readyz": {
        "summary": "What the API stands on answers",
        "responses": {200: _json("ready", ref(Health))} | _problems(_503="names what does not answer"),
        "openapi_extra": {"security": []},
    },
    "metrics": {
        "summary": "Metrics for Prometheus",
        "responses": {200: {"description": "in its text format", "content": {"text/plain": {"schema": {"type": "string"}}}}} | _problems(_401=_401),
    },
}
"""Endpoint's name → what app.py hands to FastAPI with it."""
