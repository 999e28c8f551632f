"""The cluster that KUBECONFIG names: asked with kubectl, as people do, in a namespace of the test's own.

What runs as an operator there has the permissions of crds/rbac.yaml and no others.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from kit.process import until
from kit.require import missing

ROOT = Path(__file__).parents[2]
_ADMIN = {name: value for name, value in os.environ.items() if name == "KUBECONFIG"}  # whatever a test sets it to later
_ASKED_AT = "dray"  # the namespace in crds/rbac.yaml


def kubectl(*args: str, sent: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """What it wrote. Raises Refused with what it complained of."""
    done = subprocess.run(["kubectl", *args], input=sent, capture_output=True, text=True, timeout=110, env={**os.environ, **_ADMIN, **(env or {})}, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def kubeconfig() -> dict[str, Any]:
    """The tests' own, with all that it refers to in it."""
    found: dict[str, Any] = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    return found


class Refused(Exception):
    """kubectl ended with another exit code than 0."""


def require_cluster() -> None:
    """Skips where there is none, or no kubectl."""
    if not os.environ.get("KUBECONFIG"):
        missing("kubernetes", "KUBECONFIG names no cluster")
    if shutil.which("kubectl") is None:
        missing("kubernetes", "kubectl is not installed (Debian: apt install kubernetes-client)")
    try:
        kubectl("version", "--request-timeout=5s")
    except Refused as error:
        missing("kubernetes", str(error))


def require_drayjobs() -> None:
    """Sees to it that the cluster has DrayJobs."""
    kubectl("apply", "-f", str(ROOT / "crds" / "drayjob.yaml"))
    kubectl("wait", "--for=condition=Established", "crd/drayjobs.dray.io", "--timeout=30s")


class Namespace:
    """One, with the operator's service account in it. `kubeconfig` is that account's."""

    FILES: tuple[str, ...] = ("rbac.yaml",)
    ROLES: tuple[str, ...] = ("dray-values", "dray-mirror")  # which the files leave to their reader to bind

    def __init__(self) -> None:
        self.name = f"dray-test-{secrets.token_hex(4)}"
        self.dir = Path(tempfile.mkdtemp(prefix="dray-kubernetes-"))
        self._bindings: list[str] = []
        kubectl("create", "namespace", self.name)
        kubectl("apply", "-f", "-", sent=self._permissions())
        self.server = str(kubeconfig()["clusters"][0]["cluster"]["server"])
        self.kubeconfig = self._kubeconfig(self.server)

    # --- its DrayJobs

    def apply(self, name: str, *steps: str | Mapping[str, Any], **spec: Any) -> str:
        """Its name. A step that is a text is an image."""
        whole = {"steps": [{"source": step} if isinstance(step, str) else step for step in steps]} | spec
        self.kubectl("apply", "-f", "-", sent=json.dumps(drayjob(name, whole)))
        return name

    def kubectl(self, *args: str, sent: str | None = None) -> str:
        return kubectl("-n", self.name, *args, sent=sent)

    def get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "drayjob", name, "-o", "json"))
        return found

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(name).get("status", {})
        return found

    def all(self) -> dict[str, dict[str, Any]]:
        """The status of each, by name."""
        items = json.loads(self.kubectl("get", "drayjobs", "-o", "json"))["items"]
        return {item["metadata"]["name"]: item.get("status", {}) for item in items}

    def wait(self, name: str, condition: str = "Succeeded", within: int = 60) -> dict[str, Any]:
        """Its status once the condition holds."""
        try:
            self.kubectl("wait", f"--for=condition={condition}", f"drayjob/{name}", f"--timeout={within}s")
        except Refused as error:
            raise AssertionError(f"{error}{json.dumps(self.status(name), indent=1)}") from None
        return self.status(name)

    def until_status(self, name: str, word: str, within: float = 60) -> None:
        until(lambda: self.status(name).get("status") == word, within, f"{name} is {word}")

    def delete(self, *names: str, wait: bool = True) -> None:
        self.kubectl("delete", "drayjob", *names, f"--wait={str(wait).lower()}", "--timeout=100s")

    def events(self, name: str) -> list[tuple[str, str]]:
        """(type, reason) of each, in the order of the first."""
        found = json.loads(self.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}", "-o", "json"))["items"]
        found.sort(key=lambda event: (event["firstTimestamp"], int(event["metadata"]["resourceVersion"])))
        return [(event["type"], event["reason"]) for event in found]

    # --- its operator's permissions

    def kubeconfig_at(self, server: str) -> Path:
        """The account's, at another address of the API server."""
        return self._kubeconfig(server)

    def _permissions(self) -> str:
        """The files of permissions for this namespace, with the bindings that they leave to their reader."""
        texts = [(ROOT / "crds" / file).read_text().replace(f"namespace: {_ASKED_AT}", f"namespace: {self.name}") for file in self.FILES]
        documents = [document for text in texts for document in yaml.safe_load_all(text)]
        for document in documents:
            if document["kind"] == "ClusterRoleBinding":
                document["metadata"]["name"] = f"{self.name}-{document['metadata']['name']}"
                self._bindings.append(document["metadata"]["name"])
        subject = {"kind": "ServiceAccount", "name": "dray", "namespace": self.name}
        bindings = [
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": role, "namespace": self.name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [subject],
            }
            for role in self.ROLES
        ]
        return str(yaml.safe_dump_all(documents + bindings))

    def _kubeconfig(self, server: str) -> Path:
        cluster = kubeconfig()["clusters"][0]["cluster"] | {"server": server}
        token = self.kubectl("create", "token", "dray", "--duration=2h").strip()
        whole = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "dray",
            "clusters": [{"name": "dray", "cluster": cluster}],
            "users": [{"name": "dray", "user": {"token": token}}],
            "contexts": [{"name": "dray", "context": {"cluster": "dray", "user": "dray", "namespace": self.name}}],
        }
        path = self.dir / f"kubeconfig-{secrets.token_hex(2)}"
        path.write_text(json.dumps(whole))
        return path

    # --- the end

    def remove(self) -> None:
        """Also what no operator takes care of any more."""
        with suppress(Refused):
            for name in self.all():
                with suppress(Refused):
                    self.kubectl("patch", "drayjob", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        for what, name in (("namespace", self.name), *(("clusterrolebinding", name) for name in self._bindings)):
            with suppress(Refused):
                kubectl("delete", what, name, "--wait=false")
        shutil.rmtree(self.dir)


class JobNamespace(Namespace):
    """One in which jobs run: it enforces Pod Security `restricted`, and its operator may no more than that takes."""

    FILES = ("rbac.yaml", "rbac-jobs.yaml")
    ROLES = ("dray-pull",)

    def __init__(self) -> None:
        super().__init__()
        kubectl("label", "namespace", self.name, "pod-security.kubernetes.io/enforce=restricted")

    def pods(self, job_id: str | None = None) -> list[dict[str, Any]]:
        """The Pods there, or those of one job."""
        return self._objects("pods", f"dray.job={job_id}" if job_id else "dray.job")

    def left(self, instance: str | None) -> list[str]:
        """What there is of an instance's jobs: kind/name of each."""
        return [f"{kind}/{found['metadata']['name']}" for kind in ("jobs", "pods", "secrets") for found in self._objects(kind, f"dray.instance={instance}")]

    def _objects(self, kind: str, label: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-l", label, "-o", "json"))["items"]
        return found


def drayjob(name: str, spec: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    return {"apiVersion": "dray.io/v1alpha1", "kind": "DrayJob", "metadata": {"name": name}, "spec": spec}
