"""`make release` and `kubectl apply -k`: what they make is whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import docker
import pytest
import yaml

import manifests
from kit import built, chart
from kit.kubernetes import kubectl, require_cluster

ROOT = Path(__file__).parents[2]
VERSION = yaml.safe_load((ROOT / "charts" / "dray" / "Chart.yaml").read_text())["appVersion"]

pytestmark = pytest.mark.ours


def test_the_objects_for_kubectl_are_those_of_the_chart() -> None:
    chart.require_helm()
    assert manifests.rendered() == manifests.FILE.read_text(), "`make chart` writes it anew"


def test_kubectl_applies_them(tmp_path: Path) -> None:
    """Where there is no namespace of that name yet: in one of the test's own, as the API server says without doing it."""
    require_cluster()
    shutil.copytree(manifests.FILE.parent, tmp_path / "dray", ignore=shutil.ignore_patterns("secrets.d"))
    subprocess.run([tmp_path / "dray" / "secrets"], check=True)
    things = list(yaml.safe_load_all(kubectl("kustomize", str(tmp_path / "dray"))))
    images = {variable["value"] for thing in things for variable in _environment(thing) if variable["name"] == "DRAY_IMAGE"}
    assert images == {f"registry.example/team/dray:{VERSION}"}
    with chart.namespace() as name:
        for thing in things:
            if "namespace" in thing["metadata"]:
                thing["metadata"]["namespace"] = name
        told = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", sent=yaml.safe_dump_all(things))
    assert told.count("(server dry run)") == len(things)


def _environment(thing: dict[str, object]) -> list[dict[str, str]]:
    spec = thing.get("spec")
    pod = spec.get("template", {}).get("spec", {}) if isinstance(spec, dict) else {}
    return [variable for container in pod.get("containers", []) for variable in container.get("env", [])]


def test_secrets_that_are_there_stay(tmp_path: Path) -> None:
    script = shutil.copy(manifests.FILE.parent / "secrets", tmp_path)
    subprocess.run([script], check=True)
    before = {file.name: file.read_text() for file in (tmp_path / "secrets.d").iterdir()}
    subprocess.run([script], check=True)
    assert {file.name: file.read_text() for file in (tmp_path / "secrets.d").iterdir()} == before
    assert len(before["token"]) == 32


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_tag_becomes_wheel_source_chart_and_image(engine: docker.DockerClient, tmp_path: Path) -> None:
    chart.require_helm()
    clone = tmp_path / "clone"
    for words in (["clone", "-q", str(ROOT), str(clone)], ["-C", str(clone), "tag", f"v{VERSION}"]):
        subprocess.run(["git", *words], check=True)
    env = os.environ | {"BASE": built.debian(engine), "REGISTRY": "dray-test.example/team", "DOCKER_BUILDKIT": "0"}
    subprocess.run(["deploy/release", f"v{VERSION}"], cwd=clone, env=env, check=True, timeout=580)
    names = [file.name.partition("-py3")[0] for file in sorted((clone / "dist").iterdir())]
    assert names == ["SHA256SUMS", f"dray-{VERSION}-chart.tgz", f"dray-{VERSION}", f"dray-{VERSION}.tar.gz"]
    with tarfile.open(clone / "dist" / f"dray-{VERSION}-chart.tgz") as packed:
        values = packed.extractfile("dray/values.yaml")
        assert values is not None
        assert yaml.safe_load(values)["image"]["registry"] == "dray-test.example/team"
    image = engine.images.get(f"dray-test.example/team/dray:{VERSION}")
    assert image.labels["org.opencontainers.image.version"] == VERSION
    engine.images.remove(f"dray-test.example/team/dray:{VERSION}", force=True)


def test_a_tag_that_is_not_there_is_refused() -> None:
    done = subprocess.run(["deploy/release", "v0.0.0-none"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "release: there is no v0.0.0-none" in done.stderr
