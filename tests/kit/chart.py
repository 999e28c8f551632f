"""charts/dray on the cluster that KUBECONFIG names: installed with the words of docs/install.md, in a namespace of the test's own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import yaml

from kit import built
from kit.docs import command
from kit.installed import NAME, Installed
from kit.kubernetes import Refused, kubectl
from kit.registry import Registry
from kit.require import missing

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "dray"
KUBE_VERSION = "1.34.0"  # for what is rendered away from a cluster
SOCKET = Path("/var/run/docker.sock")
HELM = os.environ.get("HELM", "helm")  # the command: Helm 3 or 4


def helm(*words: str, values: Mapping[str, Any] | None = None) -> str:
    """What it wrote. Raises Refused with what it complained of."""
    given = ["--values", "-"] if values is not None else []
    done = subprocess.run([HELM, *words, *given], input=json.dumps(values), capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    if done.returncode:
        raise Refused(f"{done.stdout}{done.stderr}")
    return done.stdout


def require_helm() -> None:
    if shutil.which(HELM) is None:
        missing("kubernetes", f"{HELM} is not installed")


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


class Release(Installed):
    """Installed from the start, with images from a registry, and what it finds in its namespace: `objects`."""

    def __init__(self, engine: docker.DockerClient, registry: Registry, values: Mapping[str, Any], objects: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(f"dray-test-{secrets.token_hex(4)}", registry.push(built.dray(engine), "dray"))
        self._redis, self._registry = registry.push(built.redis(engine), "redis"), registry.address
        kubectl("create", "namespace", self.namespace)
        for claim in (f"data-{NAME}-redis-0", f"{NAME}-outputs"):
            self.volume(claim)
        if objects:
            self.kubectl("apply", "-f", "-", sent=yaml.safe_dump_all(objects))
        self.values = self._values(values)
        self.typed("helm install", "--wait", "--timeout", "240s", values=self.values)
        self.read_token()

    def _values(self, more: Mapping[str, Any]) -> dict[str, Any]:
        volume = {"storageClass": "-", "size": "1Gi"}
        return {
            "image": {"tag": "latest"},
            "redis": {"image": self._redis, "persistence": volume},
            "outputs": {"claim": {"enabled": True, **volume}},
            "docker": {"socket": str(SOCKET), "group": SOCKET.stat().st_gid},
            "crds": {"install": not has_drayjobs(), "keep": True},
            **more,
        }

    def typed(self, beginning: str, *more: str, values: Mapping[str, Any] | None = None) -> str:
        """What the command wrote that docs/install.md has, with this namespace and this registry for those that stand there."""
        ours = {"registry.example/team": self._registry, "--all-namespaces": f"--namespace={self.namespace}"}
        words = command("docs/install.md", beginning)
        words = [self.namespace if before == "--namespace" else word for before, word in zip(["", *words], words, strict=False)]
        for theirs, mine in ours.items():
            words = [word.replace(theirs, mine) for word in words]
        return kubectl(*words[1:], *more) if words[0] == "kubectl" else helm(*words[1:], *more, values=values)

    def helm(self, *words: str, values: Mapping[str, Any] | None = None) -> str:
        return helm("--namespace", self.namespace, *words, values=values)

    def upgrade(self, **values: Any) -> None:
        again = self.values | values
        self.helm("upgrade", NAME, str(CHART), "--set", f"image.registry={self._registry}", "--wait", "--timeout", "240s", values=again)

    # --- the end

    def uninstall(self) -> None:
        self.typed("kubectl delete drayjobs", "--timeout=60s")
        self.typed("helm --namespace dray uninstall", "--wait", "--timeout", "100s")

    def remove(self) -> None:
        """All that is left, the resource definition too if this release brought it."""
        with suppress(Refused):
            self.uninstall()
        kubectl("delete", "namespace", self.namespace, "--timeout=100s")
        if self.values["crds"]["install"]:
            kubectl("delete", "crd", "drayjobs.dray.io", "--ignore-not-found")
        self.close()


def has_drayjobs() -> bool:
    """Whether the cluster has their resource definition."""
    try:
        kubectl("get", "crd", "drayjobs.dray.io")
    except Refused:
        return False
    return True
