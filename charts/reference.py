"""Writes what values.yaml says into values.schema.json and into the table of the chart's README: `make chart`.

Each value stands below a comment that says what it is for; a line `# @schema {…}` says more of what it may be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "dray"
_TYPES = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}
_MARK = "# @schema "
_TABLE = re.compile(r"(<!-- made from values.yaml: make chart -->\n).*?(<!-- end -->)", re.DOTALL)


def written(text: str, readme: str) -> tuple[str, str]:
    """The schema and the README that go with these values."""
    values = yaml.compose(text)
    assert isinstance(values, yaml.MappingNode)
    lines = text.splitlines()
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart dray", **_object(values, lines, {})}
    schema["properties"]["global"] = {"type": "object", "description": "Of a chart that this one is part of."}
    rows = "".join(f"| `{name}` | {default} | {described} |\n" for name, default, described in _rows(schema["properties"], yaml.safe_load(text)))
    table = f"| value | default | what |\n|---|---|---|\n{rows}"
    return json.dumps(schema, indent=2) + "\n", _TABLE.sub(lambda found: found[1] + table + found[2], readme)


def _object(node: yaml.MappingNode, lines: list[str], more: dict[str, Any]) -> dict[str, Any]:
    """Of a mapping: with its values if any is described, else free."""
    if not _described(node, lines):
        return {"type": "object", **more}
    properties = {key.value: _value(key, value, lines) for key, value in node.value}
    return {"type": "object", **more, "additionalProperties": False, "properties": properties}


def _described(node: yaml.MappingNode, lines: list[str]) -> bool:
    return any(lines[key.start_mark.line - 1].lstrip().startswith("#") for key, _ in node.value)


def _value(key: yaml.ScalarNode, value: yaml.Node, lines: list[str]) -> dict[str, Any]:
    above = _above(lines, key.start_mark.line)
    said = [line for line in above if not line.startswith(_MARK)]
    if not said:
        raise ValueError(f"line {key.start_mark.line + 1}: {key.value} is not described")
    more = {"description": " ".join(line.removeprefix("#").strip() for line in said)}
    for line in above:
        more |= yaml.safe_load(line.removeprefix(_MARK)) if line.startswith(_MARK) else {}
    if isinstance(value, yaml.MappingNode) and value.value:
        return _object(value, lines, more)
    default = yaml.safe_load(yaml.serialize(value))
    return {"type": _TYPES[type(default)], **more}


def _above(lines: list[str], line: int) -> list[str]:
    """The comment just above a line."""
    begin = line
    while begin and lines[begin - 1].lstrip().startswith("#"):
        begin -= 1
    return [text.strip() for text in lines[begin:line]]


def _rows(properties: dict[str, Any], defaults: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    for name, schema in properties.items():
        if name not in defaults:
            continue
        described = schema["description"] + _choice(schema)
        if "properties" in schema:
            yield f"{path}{name}", "", described
            yield from _rows(schema["properties"], defaults[name], f"{path}{name}.")
        else:
            yield f"{path}{name}", f"`{json.dumps(defaults[name])}`", described.replace("|", "\\|")


def _choice(schema: dict[str, Any]) -> str:
    return f" One of {', '.join(f'`{each}`' for each in schema['enum'])}." if "enum" in schema else ""


def main() -> None:
    schema, readme = written((CHART / "values.yaml").read_text(), (CHART / "README.md").read_text())
    (CHART / "values.schema.json").write_text(schema)
    (CHART / "README.md").write_text(readme)
    (CHART / "files" / "drayjob.yaml").write_bytes((CHART.parents[1] / "crds" / "drayjob.yaml").read_bytes())


if __name__ == "__main__":
    main()
