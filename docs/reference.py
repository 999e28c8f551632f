"""Prints the two reference pages from what the code says: `make reference`. tests/unit/test_docs.py holds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dray.settings import Settings
from dray_api import openapi
from dray_api.app import create_app

Schema = dict[str, Any]

DOCS = Path(__file__).parent
PRINTED = "<!-- printed by docs/reference.py; tests/unit/test_docs.py holds it -->"
_BOUNDS = {
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "minProperties": "at least {}",
    "maxProperties": "at most {}",
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
}


def pages() -> dict[str, str]:
    """File's name → its text."""
    return {"reference-api.md": api_page(), "reference-drayjob.md": drayjob_page()}


# --- the API


def api_page() -> str:
    nothing: Any = None  # the app is only asked what it would do
    document = openapi.document(create_app(Settings(), nothing, nothing, nothing))
    routes = "\n".join(_route(f"{method.upper()} {path}", found) for path, methods in document["paths"].items() for method, found in methods.items())
    shapes = "\n".join(_shape(name, schema) for name, schema in document["components"]["schemas"].items())
    return f"""# Routes and shapes

{PRINTED}

What `GET /openapi.json` says, for people. What it all means is told in [api.md](api.md).

{routes}
## Shapes

{shapes}"""


def _route(title: str, found: Schema) -> str:
    text = f"## {title}\n\n{found['summary']}.\n\n"
    if "parameters" in found:
        text += _table(("parameter", "in", "type", "meaning"), map(_parameter, found["parameters"])) + "\n"
    if "requestBody" in found:
        text += f"The body: {_content(found['requestBody'])}.\n\n"
    return text + _table(("answer", "with", "when"), map(_answer, found["responses"].items()))


def _parameter(found: Schema) -> tuple[str, ...]:
    return f"`{found['name']}`", found["in"], _type(found["schema"]), _meaning({**found["schema"], "description": found.get("description", "")})


def _answer(item: tuple[str, Schema]) -> tuple[str, ...]:
    code, found = item
    return code, _content(found), found["description"]


def _content(found: Schema) -> str:
    return ", ".join(f"`{kind}`: {_type(one['schema'])}" for kind, one in found.get("content", {}).items())


def _shape(name: str, schema: Schema) -> str:
    head = f"### {name}\n\n"
    if "description" in schema:
        head += f"{' '.join(schema['description'].split())}\n\n"
    if "properties" not in schema:
        return f"{head}{_meaning(schema)}\n"
    needed = schema.get("required", ())
    rows = ((f"`{field}`", _type(one), "yes" if field in needed else "", _meaning(one)) for field, one in schema["properties"].items())
    return head + _table(("field", "type", "always", "meaning"), rows)


# --- the custom resource


def drayjob_page() -> str:
    crd = yaml.safe_load((DOCS.parent / "crds" / "drayjob.yaml").read_text())
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    columns = _table(
        ("column", "shows", "meaning"), ((one["name"], f"`{one['jsonPath']}`", one.get("description", "")) for one in version["additionalPrinterColumns"])
    )
    parts = "\n".join(_part(path, part) for name in ("spec", "status") for path, part in _objects(name, schema["properties"][name]))
    return f"""# DrayJob

{PRINTED}

`{crd["spec"]["group"]}/{version["name"]}`, from [crds/drayjob.yaml](../crds/drayjob.yaml); `kubectl explain drayjob.spec` says the same.
The guide is [kubernetes.md](kubernetes.md).

{schema["description"].strip()}

{parts}
## What `kubectl get` shows

{columns}"""


def _objects(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """(path, schema) of each object that has fields of its own, the outer ones first."""
    if "properties" in schema:
        yield path, schema
        for name, one in schema["properties"].items():
            yield from _objects(f"{path}.{name}", one)
    elif "items" in schema:
        yield from _objects(f"{path}[]", schema["items"])


def _part(path: str, schema: Schema) -> str:
    needed = schema.get("required", ())
    rows = ((f"`{name}`", _type(one), "yes" if name in needed else "", _meaning(one)) for name, one in schema["properties"].items())
    text = f"## `{path}`\n\n"
    if "description" in schema:
        text += f"{' '.join(schema['description'].split())}\n\n"
    text += _table(("field", "type", "required", "meaning"), rows)
    rules = [f"- {_rule(rule)}\n" for rule in schema.get("x-kubernetes-validations", ())]
    return text + ("\nBesides:\n\n" + "".join(rules) if rules else "")


def _rule(rule: Schema) -> str:
    path = rule.get("fieldPath", "").removeprefix(".")
    return f"`{path}`: {rule['message']}" if path else str(rule["message"])


# --- both


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "contentSchema" in schema:
        return f"events of {_type(schema['contentSchema'])}"
    choices = schema.get("anyOf", schema.get("oneOf"))
    if choices and "type" not in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in choices))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{one if isinstance(one, str) else json.dumps(one)}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    return str(schema.get("type", "any"))


def _meaning(schema: Schema) -> str:
    """Description, bounds and default, as far as there are any."""
    of = [schema, *schema.get("anyOf", ())]
    bounds = [text.format(one[key]) for one in of for key, text in _BOUNDS.items() if key in one and one[key] is not True]
    if default := schema.get("default"):
        bounds.append(f"default `{default}`")
    words = " ".join(schema.get("description", "").split()).rstrip(".")
    return "; ".join([words, *bounds] if words else bounds)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text)
