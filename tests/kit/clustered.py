"""A real `dray serve --backend kubernetes`: its jobs are Pods in a namespace of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import docker

from kit.kubernetes import JobNamespace, Refused
from kit.serving import Served


class Clustered(Served):
    """As Served. What it has in the cluster is of one instance; the namespace may hold others' too."""

    clean_within = 60

    def __init__(self, engine: docker.DockerClient, namespace: JobNamespace, image: str, args: Sequence[str], env: Mapping[str, str | None]) -> None:
        self.namespace = namespace
        given = {"KUBECONFIG": str(namespace.kubeconfig), "DRAY_JOBS": "20", **env}
        super().__init__(engine, ["--backend", "kubernetes", "--image", image, *args], given)

    def pods(self, job_id: str | None = None) -> list[dict[str, Any]]:
        """Of all its jobs, or of one."""
        return [pod for pod in self.namespace.pods(job_id) if pod["metadata"]["labels"]["dray.instance"] == self.instance]

    def _remove(self) -> None:
        super()._remove()
        with suppress(Refused):
            self.namespace.kubectl("delete", "jobs", "-l", f"dray.instance={self.instance}", "--wait=false")

    def _left(self) -> list[str]:
        return self.namespace.left(self.instance)

    def _of_jobs(self) -> list[str]:
        return self._left()
