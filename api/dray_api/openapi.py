"""The OpenAPI document of the API and the page at /docs that is printed from it. The job's schema is JobSpec's own."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from dray import spec
from dray.spec import JobSpec
from dray.state import Phase, Reason
from dray_api import body, guard, problems

LIMITS = {
    "body of POST /jobs": f"{body.MAX_BODY} bytes",
    "arrays and objects within each other": f"{body.MAX_DEPTH} levels",
    "steps of a job": f"{spec.MAX_STEPS}",
    "name of a job or a step": f"{spec.MAX_NAME} characters",
    "variables in one environment": f"{spec.MAX_ENVIRONMENT}",
    "variable and value together": f"{spec.MAX_VARIABLE} bytes",
    "source": f"{spec.MAX_SOURCE} characters",
    "path in output": f"{spec.MAX_PATH} bytes, {spec.MAX_PATH_PART} in each part",
    "delimiter": f"{spec.MAX_DELIMITER} bytes, one line",
    "path and query of a request": f"{guard.MAX_TARGET} bytes",
    "headers of a request": f"{guard.MAX_HEADERS} bytes",
}
"""What is limited → how far. docs/api.md prints it."""


# --- the shapes of the answers


def _sometimes(description: str) -> Any:
    """A field that is left out where it has nothing to say."""

    def without_default(schema: dict[str, Any]) -> None:
        del schema["default"]

    return Field(None, description=description, json_schema_extra=without_default)


class Posted(JobSpec):
    """The job as posted; what was empty is left out."""

    id: str


class Listed(BaseModel):
    id: str


class StepRecord(BaseModel):
    name: str
    source: str
    state: Phase
    attempt: int
    exitCode: int | None  # noqa: N815 (Dray's JSON)
    startedAt: str | None = Field(json_schema_extra={"format": "date-time"})  # noqa: N815
    finishedAt: str | None = Field(json_schema_extra={"format": "date-time"})  # noqa: N815
    bytesIn: int | None  # noqa: N815
    bytesOut: int | None  # noqa: N815


class JobRecord(BaseModel):
    id: str
    stepsCompleted: int  # noqa: N815
    status: Literal["running", "complete", "error"]
    createdAt: str = Field(examples=["2016-06-10 16:15:23.794364 +0000 UTC"])  # noqa: N815
    finishedIn: float = _sometimes("seconds; only of a job that has ended")  # noqa: N815
    name: str
    startedAt: str | None = Field(json_schema_extra={"format": "date-time"})  # noqa: N815
    finishedAt: str | None = Field(json_schema_extra={"format": "date-time"})  # noqa: N815
    reason: Reason = _sometimes("only of a job that ended in error")
    message: str = _sometimes("only of a job that ended in error")
    steps: list[StepRecord]


class Log(BaseModel):
    lines: list[str]


class Health(BaseModel):
    status: Literal["ok"]


class ProblemField(BaseModel):
    field: str = Field(examples=["steps[0].source"])
    message: str


class Problem(BaseModel):
    """RFC 9457."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    errors: list[ProblemField] = _sometimes("only of 422")


_MODELS = (Posted, Listed, JobRecord, Log, Health, Problem)
_REF = "#/components/schemas/{model}"


# --- the routes


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model.__name__)}


def _problems(**described: str) -> dict[int | str, dict[str, Any]]:
    """`_404="no such job"` and so on, and those of every route."""
    every = {"_400": "no Host header, or more than one", "_403": "Host or Origin of another site", "_500": "an internal error"}
    found = sorted({**every, **described}.items())
    return {int(code[1:]): {"description": words, "content": {problems.MEDIA_TYPE: {"schema": _ref(Problem)}}} for code, words in found}


_401 = "DRAY_TOKEN is set and was not sent"
_404 = "no such job"
_503 = "Redis does not answer: ask again after Retry-After seconds"
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_INDEX = {
    "name": "index",
    "in": "query",
    "description": "first line, from 0; a negative one counts from the end; what is no whole number is 0",
    "schema": {"type": "integer", "default": 0},
}
_LIMIT = {"name": "limit", "in": "query", "description": "lines at most; without it: all", "schema": {"type": "integer", "minimum": 1}}
_BODY = {"required": True, "description": "JSON, whatever its Content-Type", "content": {"application/json": {"schema": _ref(JobSpec)}}}
_LOCATION = {"Location": {"description": "the job's path", "schema": {"type": "string"}}}
_OCTETS = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

OPERATIONS: dict[str, dict[str, Any]] = {
    "create": {
        "summary": "Post a job",
        "responses": {201: _json("taken: it runs from now on", _ref(Posted)) | {"headers": _LOCATION}}
        | _problems(_400="the body is no JSON", _401=_401, _413="the body is over the limit", _422="no job: errors names each field", _503=_503),
        "openapi_extra": {"requestBody": _BODY},
    },
    "listing": {
        "summary": "The ids of all jobs, oldest first",
        "responses": {200: _json("the list", {"type": "array", "items": _ref(Listed)})} | _problems(_401=_401, _503=_503),
    },
    "show": {
        "summary": "How far a job is",
        "responses": {200: _json("the job", _ref(JobRecord))} | _problems(_401=_401, _404=_404, _503=_503),
        "openapi_extra": {"parameters": [_ID]},
    },
    "log": {
        "summary": "The lines that a job's steps wrote",
        "responses": {200: _json("the lines", _ref(Log))} | _problems(_401=_401, _404=_404, _422="limit is no whole number of at least 1", _503=_503),
        "openapi_extra": {"parameters": [_ID, _INDEX, _LIMIT]},
    },
    "output": {
        "summary": "What a complete job's last step passed on",
        "responses": {200: {"description": "the bytes", "content": _OCTETS}}
        | _problems(_401=_401, _404="no such job, or its output is not in the output store", _409="the job still runs, or failed", _503=_503),
        "openapi_extra": {"parameters": [_ID]},
    },
    "delete": {
        "summary": "Delete what is recorded of a job",
        "responses": {204: {"description": "gone"}} | _problems(_401=_401, _404=_404, _503=_503),
        "openapi_extra": {"parameters": [_ID]},
    },
    "healthz": {
        "summary": "The process is alive",
        "responses": {200: _json("alive", _ref(Health))} | _problems(),
        "openapi_extra": {"security": []},
    },
    "readyz": {
        "summary": "What the API stands on answers",
        "responses": {200: _json("ready", _ref(Health))} | _problems(_503="names what does not answer"),
        "openapi_extra": {"security": []},
    },
}
"""Endpoint's name → what app.py hands to FastAPI with it."""


def document(app: FastAPI) -> dict[str, Any]:
    limits = "".join(f"\n- {what}: {limit}" for what, limit in LIMITS.items())
    prefix = "Every route is also there under `/v1`, or any other `/v<number>`; every GET also as HEAD."
    found = get_openapi(title="Dray", version=app.version, description=f"{app.description} {prefix}\n\nLimits:\n{limits}", routes=app.routes)
    _, given = models_json_schema([(JobSpec, "validation"), *((model, "serialization") for model in _MODELS)], ref_template=_REF)
    found["components"] = {"schemas": given["$defs"], "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}}
    found["security"] = [{"bearer": []}, {}]
    return found


# --- /docs


def page(found: dict[str, Any]) -> str:
    """The document for people, without scripts and without anything from elsewhere."""
    info = found["info"]
    routes = "".join(_route(path, method, operation) for path, methods in found["paths"].items() for method, operation in methods.items())
    schemas = "".join(f"<h3>{escape(name)}</h3><pre>{escape(json.dumps(schema, indent=2))}</pre>" for name, schema in found["components"]["schemas"].items())
    title = escape(f"{info['title']} {info['version']}")
    return (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"<p class=text>{escape(info['description'])}<p>For programs: <a href=openapi.json>openapi.json</a>{routes}<h2>Shapes</h2>{schemas}</html>"
    )


_STYLE = "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}.text{white-space:pre-line}pre{background:#eee;padding:1em;overflow:auto}"


def _route(path: str, method: str, operation: dict[str, Any]) -> str:
    given = "".join(f"<li><code>{escape(one['name'])}</code> in {one['in']}: {escape(one.get('description', ''))}" for one in operation.get("parameters", ()))
    answers = "".join(f"<li>{code}: {escape(answer['description'])}" for code, answer in operation["responses"].items())
    return f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}<ul>{given}{answers}</ul>"
