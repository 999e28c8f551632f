"""The peers on a cluster: bare Jobs, each made by one request and followed by one watch. What they run is what Dray's steps run."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kit.apiserver import ApiServer
from kit.process import until

_CLEARED_WITHIN, _MOMENT = 300, 1.0  # seconds
_RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_NOBODY = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}


class BareJobs:
    """In one namespace. Each raises AssertionError where a Job fails."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self._server = server
        self._jobs, self._pods = f"/apis/batch/v1/namespaces/{namespace}/jobs", f"/api/v1/namespaces/{namespace}/pods"

    def run(self, images: Sequence[str]) -> None:
        """One Job with a container for each image, until the Job is complete."""
        self._complete([self._create(images)])

    def run_each(self, images: Sequence[str]) -> None:
        """A Job for each image, one after the other."""
        for image in images:
            self.run([image])

    def run_containers(self, images: Sequence[str]) -> None:
        """One Job, until the kubelet has told that all its containers have ended well."""
        name, version = self._create(images)
        for pod in self._server.watch(self._pods, version, labelSelector=f"job-name={name}"):
            phase = pod.get("status", {}).get("phase")
            assert phase != "Failed", pod["status"]
            if phase == "Succeeded":
                return

    def run_many(self, images: Sequence[str], count: int) -> None:
        """So many Jobs at once, until all are complete."""
        self._complete([self._create(images) for _ in range(count)])

    def clear(self) -> None:
        """Every Job of the namespace is removed, and every pod is gone."""
        self._server.http.request("DELETE", self._jobs, json={"propagationPolicy": "Background"}).raise_for_status()
        self.cleared()

    def cleared(self) -> None:
        """Waits until no Job and no pod is there, and a moment more for the kubelet to tidy up."""
        until(lambda: not any(self._server.get(path)["items"] for path in (self._jobs, self._pods)), _CLEARED_WITHIN, "all Jobs and pods are gone")
        time.sleep(_MOMENT)

    def _create(self, images: Sequence[str]) -> tuple[str, str]:
        """Its name, and the version from which a watch tells of it."""
        answer = self._server.http.post(self._jobs, json=job(f"bare-{secrets.token_hex(4)}", images))
        made = answer.raise_for_status().json()["metadata"]
        return made["name"], made["resourceVersion"]

    def _complete(self, made: Sequence[tuple[str, str]]) -> None:
        waiting, (_, version) = {name for name, _ in made}, made[0]
        for found in self._server.watch(self._jobs, version):
            conditions = {condition["type"] for condition in found.get("status", {}).get("conditions") or () if condition["status"] == "True"}
            assert "Failed" not in conditions, found["status"]
            if "Complete" in conditions:
                waiting.discard(found["metadata"]["name"])
            if not waiting:
                return


def job(name: str, images: Sequence[str]) -> Mapping[str, Any]:
    containers = [
        {"name": f"c{number}", "image": image, "imagePullPolicy": "IfNotPresent", "securityContext": _RESTRICTED} for number, image in enumerate(images)
    ]
    pod = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": _NOBODY, "containers": containers}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}
