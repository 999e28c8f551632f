"""Dray in a namespace of the cluster that KUBECONFIG names, however it came there: its objects by kubectl, its API by port-forward."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from kit.dray import client
from kit.kubernetes import Refused, kubectl
from kit.process import Process, free_port, until

NAME = "dray"


class Installed:
    """`image`: Dray's own, by a reference that all can pull. The cluster's only node is this machine, and so are its volumes."""

    def __init__(self, namespace: str, image: str) -> None:
        self.namespace, self.image, self.token = namespace, image, ""
        self.dir = Path(tempfile.mkdtemp(prefix="dray-installed-"))
        self._forward: Process | None = None
        self._port, self._http = 0, client("http://127.0.0.1")
        self._volumes: list[str] = []

    def volume(self, claim: str) -> None:
        """A folder of this machine for a claim."""
        folder = self.dir / claim
        folder.mkdir()
        folder.chmod(0o777)
        spec = {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": self.namespace, "name": claim},
            "storageClassName": "",
        }
        name = f"{self.namespace}-{claim}"
        kubectl("apply", "-f", "-", sent=json.dumps({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}))
        self._volumes.append(name)

    def read_token(self) -> None:
        """The one that its clients send."""
        found = json.loads(self.kubectl("get", "secret", f"{NAME}-token", "-o", "json"))["data"]["token"]
        self.token = base64.b64decode(found).decode()

    def kubectl(self, *words: str, sent: str | None = None) -> str:
        return kubectl("-n", self.namespace, *words, sent=sent)

    def pods(self, part: str) -> list[str]:
        return self.kubectl("get", "pods", "-l", f"app.kubernetes.io/component={part}", "-o", "name").split()

    def delete_pods(self, part: str) -> None:
        """All at once, as a node that dies would take them; ready again afterwards."""
        self.kubectl("delete", "--grace-period=1", *self.pods(part))
        kind = "statefulset" if part == "redis" else "deployment"
        self.kubectl("rollout", "status", f"{kind}/{NAME}-{part}", "--timeout=100s")

    # --- the API

    def ask(self, method: str, path: str, within: float = 60, **request: Any) -> httpx.Response:
        """By `kubectl port-forward`, which is begun again when the pod at its other end is gone. Posted again, a job is the same job."""
        deadline = time.monotonic() + within
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": secrets.token_hex(8)}
        while True:
            try:
                self._forwarded()
                answer = self._http.request(method, f"http://127.0.0.1:{self._port}{path}", headers=headers, **request)
                if answer.status_code != 503 or time.monotonic() > deadline:
                    return answer
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                self._end_forward()
            time.sleep(0.2)

    def post(self, *steps: Mapping[str, Any]) -> str:
        """The job's id."""
        answer = self.ask("POST", "/jobs", json={"steps": list(steps)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def step(self, script: str) -> dict[str, Any]:
        """One that runs a shell script in Dray's own image, which all can pull."""
        return {"source": self.image, "command": ["sh", "-c", script]}

    def record(self, job: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("GET", f"/jobs/{job}").raise_for_status().json()
        return answer

    def output(self, job: str, within: float = 200) -> str:
        """Once the job is complete."""
        until(lambda: self.record(job)["status"] != "running", within, f"{job} has ended")
        record = self.record(job)
        assert record["status"] == "complete", json.dumps(record, indent=1)
        return self.ask("GET", f"/jobs/{job}/output").raise_for_status().text

    def _forwarded(self) -> None:
        if self._forward is not None and self._forward.code is None:
            return
        self._port = free_port()
        words = ["kubectl", "-n", self.namespace, "port-forward", f"service/{NAME}-api", f"{self._port}:3000"]
        self._forward = Process(words, self.dir / "forward.log")
        until(lambda: self._forward is None or self._forward.code is not None or "Forwarding" in self._forward.output, 20, "kubectl forwards")

    def _end_forward(self) -> None:
        if self._forward is not None:
            self._forward.kill()
            self._forward.output_file.unlink()
            self._forward = None

    # --- the end

    def show(self) -> None:
        """For pytest to show with a failed test."""
        for words in (["get", "pods,drayjobs,events"], ["logs", "--prefix", "--tail=60", "-l", "app.kubernetes.io/name=dray"]):
            with suppress(Refused):
                print(self.kubectl(*words))

    def close(self) -> None:
        """Without its objects, which are its caller's to remove."""
        self._end_forward()
        self._http.close()
        if self._volumes:
            kubectl("delete", "persistentvolume", *self._volumes)
        shutil.rmtree(self.dir)
