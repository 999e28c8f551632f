"""What a DrayJob says, as crds/drayjob.yaml has it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from dray.clock import SECOND
from dray.spec import OBJECT_NAMESPACE, RESERVED, JobSpec, parse_trusted

GROUP, VERSION, PLURAL, KIND = "dray.io", "v1alpha1", "drayjobs", "DrayJob"
FINALIZER = "dray.io/cleanup"
NAMESPACE_LABEL, NAME_LABEL = OBJECT_NAMESPACE, f"{RESERVED}drayjob"
"""Of the jobs that come from objects: by them they are found at the API."""
_ONLY_HERE = frozenset({"suspend", "ttlSecondsAfterFinished", "mirrorOf"})


def collection(namespace: str | None = None) -> str:
    """The API server's path of all, or of one namespace's."""
    return f"/apis/{GROUP}/{VERSION}/" + (f"namespaces/{namespace}/" if namespace else "") + PLURAL


@dataclass(frozen=True)
class DrayJob:
    """One object as the API server has it."""

    body: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self._metadata["name"])

    @property
    def namespace(self) -> str:
        return str(self._metadata["namespace"])

    @property
    def uid(self) -> str:
        return str(self._metadata["uid"])

    @property
    def path(self) -> str:
        return f"{collection(self.namespace)}/{self.name}"

    @property
    def generation(self) -> int:
        return int(self._metadata.get("generation", 0))

    @property
    def deleted_at(self) -> float | None:
        """Seconds since the epoch; None: it is not being deleted."""
        text = self._metadata.get("deletionTimestamp")
        return None if text is None else seconds(text)

    @property
    def finalizers(self) -> list[str]:
        return list(self._metadata.get("finalizers") or ())

    @property
    def held_back(self) -> bool:
        """Whether our finalizer keeps it from going."""
        return FINALIZER in self.finalizers

    @property
    def suspended(self) -> bool:
        return bool(self._spec.get("suspend"))

    @property
    def time_to_live(self) -> int | None:
        """Seconds after its end; None: for ever."""
        found = self._spec.get("ttlSecondsAfterFinished")
        return None if found is None else int(found)

    @property
    def mirror_of(self) -> str | None:
        """The job that it only shows."""
        return self._spec.get("mirrorOf")

    @property
    def job_id(self) -> str:
        return self.mirror_of or self.uid.upper()

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.body.get("status") or {})

    @property
    def accepted(self) -> bool:
        """Whether its job was once recorded."""
        return "jobID" in self.status

    @property
    def completed_at(self) -> float | None:
        text = self.status.get("completionTime")
        return None if text is None else seconds(text)

    @cached_property
    def job_spec(self) -> JobSpec:
        """The job that it asks for. Raises Invalid, naming each field."""
        given: dict[str, Any] = {key: value for key, value in self._spec.items() if key not in _ONLY_HERE}
        labels = given.get("labels")
        labels = (labels if isinstance(labels, dict) else {}) | {NAMESPACE_LABEL: self.namespace, NAME_LABEL: self.name}
        steps = [self._step(step) for step in _list(given.get("steps"))]
        return parse_trusted({"name": self.name} | self._step(given) | {"steps": steps, "labels": labels})

    def _step(self, given: Any) -> Any:
        """A step, or the job, with its variables as a job has them."""
        if not isinstance(given, dict) or "environment" not in given:
            return given
        return given | {"environment": [self._variable(variable) for variable in _list(given["environment"])]}

    def _variable(self, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        variable = {key: value for key, value in given.items() if key not in ("valueFrom", "cluster")}
        for word, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if word in (given.get("valueFrom") or {}):
                variable["cluster"] = given["valueFrom"][word] | {"namespace": self.namespace, "kind": kind}
        return variable

    @property
    def _metadata(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.body["metadata"]
        return found

    @property
    def _spec(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.body.get("spec") or {}
        return found


def version(body: Mapping[str, Any]) -> int:
    """Of two states of one object the newer has the greater one."""
    return int(body["metadata"]["resourceVersion"])


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def timestamp(microseconds: int) -> str:
    """As Kubernetes writes times: whole seconds."""
    return datetime.fromtimestamp(microseconds // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []
