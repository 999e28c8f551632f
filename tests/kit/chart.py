"""charts/dray on the cluster that KUBECONFIG names: installed with helm, as people do, in a namespace of the test's own."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import httpx
import yaml

from kit import built
from kit.dray import client
from kit.kubernetes import Refused, kubectl
from kit.process import Process, free_port, until
from kit.registry import Registry
from kit.require import missing

CHART = Path(__file__).parents[2] / "charts" / "dray"
NAME = "dray"
KUBE_VERSION = "1.34.0"  # for what is rendered away from a cluster
SOCKET = Path("/var/run/docker.sock")


def helm(*words: str, values: Mapping[str, Any] | None = None) -> str:
    """What it wrote. Raises Refused with what it complained of."""
    given = ["--values", "-"] if values is not None else []
    done = subprocess.run(["helm", *words, *given], input=json.dumps(values), capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise Refused(f"{done.stdout}{done.stderr}")
    return done.stdout


def require_helm() -> None:
    if shutil.which("helm") is None:
        missing("kubernetes", "helm is not installed")


def rendered(values: Mapping[str, Any], *options: str, namespace: str = "jobs") -> list[dict[str, Any]]:
    """The objects of the chart, hooks too."""
    text = helm("template", NAME, str(CHART), "--namespace", namespace, "--kube-version", KUBE_VERSION, *options, values=values)
    return [document for document in yaml.safe_load_all(text) if document]


def found(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The one of that kind and name. Raises AssertionError where there is none."""
    return next((thing for thing in objects if (thing["kind"], thing["metadata"]["name"]) == (kind, name)), None) or _absent(objects, kind, name)


def _absent(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    raise AssertionError(f"no {kind} {name} among {[(thing['kind'], thing['metadata']['name']) for thing in objects]}")


@contextmanager
def namespace() -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"dray-test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--timeout=100s")


class Release:
    """Installed from the start, with images from a registry on the cluster's only node, which is this machine; so are its volumes."""

    def __init__(self, engine: docker.DockerClient, registry: Registry, values: Mapping[str, Any]) -> None:
        self.namespace = f"dray-test-{secrets.token_hex(4)}"
        self.dir = Path(tempfile.mkdtemp(prefix="dray-chart-"))
        self.image = registry.push(built.dray(engine), "dray")
        self._redis = registry.push(built.redis(engine), "redis")
        self._forward: Process | None = None
        self._port, self._http = 0, client("http://127.0.0.1")
        kubectl("create", "namespace", self.namespace)
        for claim in (f"data-{NAME}-redis-0", f"{NAME}-outputs"):
            kubectl("apply", "-f", "-", sent=json.dumps(self._volume(claim)))
        self.values = self._values(values)
        self.helm("install", NAME, str(CHART), "--wait", "--timeout", "240s", values=self.values)
        self.token = self._secret(f"{NAME}-token", "token")

    def _values(self, more: Mapping[str, Any]) -> dict[str, Any]:
        registry, _, repository = self.image.partition("/")
        crds = {"install": not _has_drayjobs(), "keep": True}
        volume = {"storageClass": "-", "size": "1Gi"}
        return {
            "image": {"registry": registry, "repository": repository.partition(":")[0], "tag": "latest"},
            "redis": {"image": self._redis, "persistence": volume},
            "outputs": {"claim": {"enabled": True, **volume}},
            "docker": {"socket": str(SOCKET), "group": SOCKET.stat().st_gid},
            "crds": crds,
            **more,
        }

    def _volume(self, claim: str) -> dict[str, Any]:
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
        return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{self.namespace}-{claim}"}, "spec": spec}

    # --- the release

    def helm(self, *words: str, values: Mapping[str, Any] | None = None) -> str:
        return helm("--namespace", self.namespace, *words, values=values)

    def upgrade(self, **values: Any) -> None:
        self.helm("upgrade", NAME, str(CHART), "--wait", "--timeout", "240s", values=self.values | values)

    def kubectl(self, *words: str, sent: str | None = None) -> str:
        return kubectl("-n", self.namespace, *words, sent=sent)

    def pods(self, part: str) -> list[str]:
        return self.kubectl("get", "pods", "-l", f"app.kubernetes.io/component={part}", "-o", "name").split()

    def delete_pods(self, part: str) -> None:
        """All at once, as a node that dies would take them; ready again afterwards."""
        self.kubectl("delete", "--grace-period=1", *self.pods(part))
        kind = "statefulset" if part == "redis" else "deployment"
        self.kubectl("rollout", "status", f"{kind}/{NAME}-{part}", "--timeout=100s")

    def _secret(self, name: str, key: str) -> str:
        return base64.b64decode(json.loads(self.kubectl("get", "secret", name, "-o", "json"))["data"][key]).decode()

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

    def output(self, job: str, within: float = 100) -> str:
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
        for words in (["get", "pods,drayjobs,events"], ["logs", "--prefix", "--tail=60", "-l", f"app.kubernetes.io/instance={NAME}"]):
            with suppress(Refused):
                print(self.kubectl(*words))

    def uninstall(self) -> None:
        self.kubectl("delete", "drayjobs", "--all", "--timeout=60s")
        self.helm("uninstall", NAME, "--wait", "--timeout", "100s")

    def remove(self) -> None:
        """All that is left, the resource definition too if this release brought it."""
        self._end_forward()
        self._http.close()
        with suppress(Refused):
            self.uninstall()
        kubectl("delete", "namespace", self.namespace, "--timeout=100s")
        kubectl("delete", "persistentvolume", *(f"{self.namespace}-{claim}" for claim in (f"data-{NAME}-redis-0", f"{NAME}-outputs")))
        if self.values["crds"]["install"]:
            kubectl("delete", "crd", "drayjobs.dray.io", "--ignore-not-found")
        shutil.rmtree(self.dir)


def _has_drayjobs() -> bool:
    try:
        kubectl("get", "crd", "drayjobs.dray.io")
    except Refused:
        return False
    return True
