"""What the chart renders for each of a number of values: tests/golden/chart/default.yaml, and beside it how each other case differs.

`make chart` writes them anew; what has changed is for people to read. The resource definition is left out: another test holds it.
"""

from __future__ import annotations

import difflib
import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kit.chart import HELM, rendered

FOLDER = Path(__file__).parents[1] / "golden" / "chart"
GIVEN = {"token": {"value": "sixteen-characters"}, "redis": {"password": "secret"}}
CASES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "docker": {"backend": "docker", "docker": {"socket": "/run/podman.sock", "group": 107}},
    "namespaces": {
        "namespaces": ["team-a", "team-b"],
        "valuesFrom": ["team-a"],
        "mirrorJobs": "shown",
        "kubernetes": {"jobNamespaces": ["team-c"], "pullSecrets": ["login"], "root": True},
    },
    "external": {
        "token": {"existingSecret": "ours", "key": "dray"},
        "redis": {"existingSecret": "redis", "key": "uri"},
        "outputs": {"url": "s3://bucket/dray", "secret": "bucket"},
        "settings": {"LOG_LEVEL": "debug", "DRAY_JOBS": 16},
    },
    "redis-url": {"redis": {"url": "rediss://redis.example:6380/1"}},
    "one-of-each": {
        "api": {"replicas": 1},
        "operator": {"replicas": 1, "secrets": "for-jobs"},
        "redis": {"persistence": {"enabled": False}, "password": "secret"},
        "networkPolicy": {"enabled": False},
    },
    "open": {
        "ingress": {"enabled": True, "host": "dray.example", "className": "nginx", "tlsSecret": "dray-tls"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["dray.example", "jobs.example"]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "api": {"autoscaling": {"enabled": True}, "service": {"type": "LoadBalancer", "port": 80}, "hosts": ["dray.internal"]},
        "networkPolicy": {"apiFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "metricsFrom": [{"namespaceSelector": {}}]},
    },
    "volume": {
        "outputs": {"claim": {"enabled": True, "storageClass": "nfs", "keep": False}},
        "redis": {"persistence": {"storageClass": "-", "keep": False}, "password": "secret"},
    },
    "names": {
        "fullnameOverride": "engine",
        "commonLabels": {"team": "a"},
        "image": {"registry": "registry.example", "digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": ["login"],
        "operator": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"operator": "Exists"}],
            "podAnnotations": {"a": "b"},
            "priorityClassName": "system-cluster-critical",
        },
        "crds": {"install": False},
    },
}


def objects(case: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_objects(case))
    return found


@functools.cache
def _objects(case: str) -> str:
    values = dict(CASES[case])
    given = {name: part for name, part in GIVEN.items() if name not in values}
    return json.dumps([thing for thing in rendered(given | values) if thing["kind"] != "CustomResourceDefinition"])


def golden(case: str) -> str:
    """What is in its file: the default's objects, or the difference to them."""
    text = _text(case)
    if case == "default":
        return text
    return "".join(difflib.unified_diff(_text("default").splitlines(True), text.splitlines(True), "default", case, n=2))


def file(case: str) -> Path:
    return FOLDER / (f"{case}.yaml" if case == "default" else f"{case}.diff")


def _text(case: str) -> str:
    things = sorted(objects(case), key=lambda thing: (thing["kind"], thing["metadata"].get("namespace", ""), thing["metadata"]["name"]))
    return yaml.safe_dump_all(things, width=160)


if __name__ == "__main__":
    if shutil.which(HELM) is None:
        raise SystemExit(f"golden: {HELM} is not installed")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        file(name).write_text(golden(name))
