"""Writes deploy/kubernetes/dray.yaml, the chart's objects for `kubectl apply -k`: `make chart`. Secrets are left to its kustomization."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FILE = ROOT / "deploy" / "kubernetes" / "dray.yaml"
_NAMESPACE = "dray"
_IN_CLUSTER = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"}
_HELMS = ("helm.sh/", "app.kubernetes.io/managed-by")


def rendered() -> str:
    helm = os.environ.get("HELM", "helm")
    command = [helm, "template", "dray", str(ROOT / "charts" / "dray"), "--namespace", _NAMESPACE, "--kube-version", "1.34.0", "--no-hooks"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    things = [_plain(thing) for thing in yaml.safe_load_all(text) if thing and thing["kind"] != "Secret"]
    things.insert(0, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
    return "# Made from charts/dray by `make chart`.\n" + yaml.safe_dump_all(things, sort_keys=False, width=160)


def _plain(thing: dict[str, Any]) -> dict[str, Any]:
    """Without what is Helm's, and with its namespace."""
    if thing["kind"] not in _IN_CLUSTER:
        thing["metadata"].setdefault("namespace", _NAMESPACE)
    for metadata in (thing["metadata"], thing.get("spec", {}).get("template", {}).get("metadata", {})):
        for field in ("labels", "annotations"):
            kept = {name: value for name, value in metadata.pop(field, {}).items() if not name.startswith(_HELMS)}
            if kept:
                metadata[field] = kept
    return thing


if __name__ == "__main__":
    FILE.write_text(rendered())
