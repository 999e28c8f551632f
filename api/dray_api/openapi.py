"""The OpenAPI document of the API and the page at /docs that is printed from it. The job's schema is JobSpec's own."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from dray import fields
from dray.spec import JobSpec
from dray_api import body, guard, params
from dray_api.shapes import MODELS, REF

LIMITS = {
    "body of POST /jobs": f"{body.MAX_BODY} bytes",
    "arrays and objects within each other": f"{body.MAX_DEPTH} levels",
    "steps of a job": f"{fields.MAX_STEPS}",
    "name of a job or a step": f"{fields.MAX_NAME} characters",
    "labels of a job": f"{fields.MAX_LABELS}",
    "variables in one environment": f"{fields.MAX_ENVIRONMENT}",
    "variable and value together": f"{fields.MAX_VARIABLE} bytes",
    "source": f"{fields.MAX_SOURCE} characters",
    "words in command, or in args": f"{fields.MAX_WORDS}, each of {fields.MAX_VARIABLE} bytes",
    "a path": f"{fields.MAX_PATH} bytes, {fields.MAX_PATH_PART} in each part",
    "delimiter": f"{fields.MAX_DELIMITER} bytes, one line",
    "timeout": f"{fields.MAX_TIMEOUT} seconds",
    "retries": f"{fields.MAX_RETRIES}",
    "mounts of a step": f"{fields.MAX_MOUNTS}",
    "cpu": f"{fields.MAX_CPU} cores",
    "memory": f"at least {fields.MIN_MEMORY} bytes",
    "jobs on a page of GET /jobs": f"{params.MAX_PAGE}",
    "path and query of a request": f"{guard.MAX_TARGET} bytes",
    "headers of a request": f"{guard.MAX_HEADERS} bytes",
}
"""What is limited → how far. docs/api.md prints it."""


def document(app: FastAPI) -> dict[str, Any]:
    limits = "".join(f"\n- {what}: {limit}" for what, limit in LIMITS.items())
    prefix = "Every route is also there under `/v1`, or any other `/v<number>`; every GET also as HEAD."
    found = get_openapi(title="Dray", version=app.version, description=f"{app.description} {prefix}\n\nLimits:\n{limits}", routes=app.routes)
    _, given = models_json_schema([(JobSpec, "validation"), *((model, "serialization") for model in MODELS)], ref_template=REF)
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
