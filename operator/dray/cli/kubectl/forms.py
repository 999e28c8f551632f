"""DrayJobs as files say them, and as the client shows jobs. No I/O."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from dray.client.api import Json
from dray.client.errors import Failed
from dray.crd.drayjob import GROUP, KIND, VERSION, DrayJob, seconds

_PREFIX = 50  # characters of a made name before its random end
_MADE_BY_OTHERS = ("suspend", "mirrorOf")


def body(content: bytes, namespace: str | None) -> Json:
    """The object to create, of a DrayJob's manifest or of a job as the API takes it. Raises Failed."""
    try:
        given = json.loads(content)
    except ValueError as error:
        raise Failed(f"the job is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise Failed("the job must be an object")
    if "kind" not in given and "apiVersion" not in given:
        return _object(_named(given.get("name")), _as_spec(given))
    if given.get("kind") != KIND or str(given.get("apiVersion")).partition("/")[0] != GROUP:
        raise Failed(f"the file holds a {given.get('kind')} of {given.get('apiVersion')}, not a {KIND} of {GROUP}/{VERSION}")
    metadata = given.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    if namespace and metadata.setdefault("namespace", namespace) != namespace:
        raise Failed(f"the file says namespace {metadata['namespace']}, the command {namespace}")
    metadata["name"] = metadata.get("name") or _named(metadata.pop("generateName", None))
    return given | {"metadata": metadata}


def again(found: Json) -> Json:
    """A DrayJob that does the same once more, under a name of its own."""
    drayjob = DrayJob(found)
    if drayjob.mirror_of:
        raise Failed(f"DrayJob {drayjob.name} shows a job that came another way: dray rerun {drayjob.mirror_of}")
    spec = {key: value for key, value in found["spec"].items() if key not in _MADE_BY_OTHERS}
    copy = _object(_named(drayjob.name), spec)
    if labels := found["metadata"].get("labels"):
        copy["metadata"]["labels"] = labels
    return copy


def reference(found: Json) -> str:
    """As kubectl writes it with `-o name`."""
    return f"drayjob.{GROUP}/{found['metadata']['name']}"


def summary(found: Json, everywhere: bool = False) -> Json:
    """In the fields of the API's list; the id is the name by which the verbs have it."""
    drayjob, spec = DrayJob(found), found.get("spec") or {}
    status = drayjob.status
    return {
        "id": f"{drayjob.namespace}/{drayjob.name}" if everywhere else drayjob.name,
        "name": spec.get("name", ""),
        "status": status.get("status", ""),
        "stepsCompleted": status.get("stepsCompleted", 0),
        "steps": len(spec.get("steps") or ()),
        "createdAt": found["metadata"]["creationTimestamp"],
        "finishedIn": _took(status),
    }


def record(found: Json) -> Json:
    """In the fields of the API's record, as far as the object has them."""
    status, steps = DrayJob(found).status, (found.get("spec") or {}).get("steps") or ()
    states = [*(status.get("steps") or ()), *({} for _ in steps)]
    more = {"reason": status.get("reason"), "message": message(status), "stderr": status.get("stderr") or (), "labels": found["metadata"].get("labels")}
    return summary(found) | more | {"steps": [_step(step, state) for step, state in zip(steps, states, strict=False)]}


def message(status: Mapping[str, Any]) -> str:
    """What went wrong, if anything did."""
    return next((condition["message"] for condition in status.get("conditions") or () if condition["type"] == "Failed" and condition["status"] == "True"), "")


def _step(step: Json, state: Json) -> Json:
    return {
        "name": step.get("name", ""),
        "source": step["source"],
        "state": state.get("state", "waiting"),
        "exitCode": state.get("exitCode"),
        "startedAt": state.get("startTime"),
        "finishedAt": state.get("completionTime"),
        "bytesOut": None,
    }


def _took(status: Mapping[str, Any]) -> float | None:
    begun, ended = status.get("startTime"), status.get("completionTime")
    return seconds(ended) - seconds(begun) if begun and ended else None


def _object(name: str, spec: Json) -> Json:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}, "spec": spec}


def _named(prefix: object) -> str:
    """A name that nothing else has: what it comes from, in the characters that a name may have, and a random end."""
    words = re.sub(r"[^a-z0-9]+", "-", str(prefix or "job").lower())[:_PREFIX].strip("-")
    return f"{words or 'job'}-{secrets.token_hex(3)}"


def _as_spec(job: Json) -> Json:
    """Numbers of processors are texts in a cluster, as in all of its objects."""
    steps = job.get("steps")
    return job | {"steps": [_with_text(step) for step in steps]} if isinstance(steps, list) else job


def _with_text(step: Any) -> Any:
    resources = step.get("resources") if isinstance(step, dict) else None
    if not isinstance(resources, dict) or not isinstance(resources.get("cpu"), float):
        return step
    return step | {"resources": resources | {"cpu": str(resources["cpu"])}}
