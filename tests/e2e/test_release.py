"""`make release` and `kubectl apply -k`: what they make is whole, and works."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import yaml

import manifests
from kit import built, chart
from kit.docs import type_in
from kit.installed import NAME, Installed
from kit.kubernetes import drayjob, kubectl, require_cluster
from kit.registry import Registry

ROOT, GUIDE = Path(__file__).parents[2], "docs/install.md"
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


@pytest.fixture
def applied(engine: docker.DockerClient, tmp_path: Path) -> Iterator[Installed]:
    """As docs/install.md says, in the very namespaces that it names. The resource definition is left alone where the cluster has it."""
    require_cluster()
    if NAME in kubectl("get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}").split():
        pytest.skip(f"the cluster has a namespace {NAME}, which is not the test's")
    registry = Registry(engine)
    installed = Installed(NAME, registry.push(built.dray(engine), "dray", VERSION))
    installed.volume(f"data-{NAME}-redis-0")
    folder = tmp_path / "deploy" / "kubernetes"
    shutil.copytree(manifests.FILE.parent, folder, ignore=shutil.ignore_patterns("secrets.d"))
    _fill_in(folder, registry.address, registry.push(built.redis(engine), "redis"))
    try:
        type_in(GUIDE, "apply -k", tmp_path, {})
        yield installed
    finally:
        installed.show()
        kubectl("delete", "-k", str(folder), "--ignore-not-found", "--timeout=100s")
        installed.close()
        registry.remove()


def _fill_in(folder: Path, registry: str, redis: str) -> None:
    name, _, tag = redis.rpartition(":")
    file = folder / "kustomization.yaml"
    file.write_text(file.read_text().replace("registry.example/team", registry))
    kustomization = yaml.safe_load(file.read_text())
    kustomization["images"].append({"name": "docker.io/library/redis", "newName": name, "newTag": tag})
    file.write_text(yaml.safe_dump(kustomization))
    if chart.has_drayjobs():
        file = folder / "dray.yaml"
        things = [thing for thing in yaml.safe_load_all(file.read_text()) if thing["kind"] != "CustomResourceDefinition"]
        file.write_text(yaml.safe_dump_all(things))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_what_kubectl_applies_runs_jobs_and_goes_without_a_trace(applied: Installed, tmp_path: Path) -> None:
    for what in ("statefulset/dray-redis", "deployment/dray-api", "deployment/dray-operator"):
        applied.kubectl("rollout", "status", what, "--timeout=100s")
    applied.read_token()
    assert applied.output(applied.post(applied.step("echo hello"), applied.step("tr a-z A-Z"))) == "HELLO\n"
    applied.kubectl("apply", "-f", "-", sent=json.dumps(drayjob("words", {"steps": [applied.step("echo hello")]})))
    applied.kubectl("wait", "--for=condition=Succeeded", "drayjob/words", "--timeout=60s")
    applied.kubectl("delete", "drayjob", "words", "--timeout=60s")
    type_in(GUIDE, "delete -k", tmp_path / "deploy" / "kubernetes", {})
    in_cluster = kubectl("get", "namespaces,clusterroles,clusterrolebindings", "-o", "name").split()
    theirs = {f"namespace/{NAME}", f"namespace/{NAME}-jobs"}
    assert [name for name in in_cluster if name in theirs or f"/{NAME}-{NAME}-" in name] == []


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_tag_becomes_wheel_source_chart_and_image_and_the_last_two_are_pushed(engine: docker.DockerClient, tmp_path: Path) -> None:
    chart.require_helm()
    clone, registry = tmp_path / "clone", Registry(engine, tls=True)
    team = f"{registry.address}/team"
    for words in (["clone", "-q", str(ROOT), str(clone)], ["-C", str(clone), "tag", f"v{VERSION}"]):
        subprocess.run(["git", *words], check=True)
    try:
        trusted = {"SSL_CERT_FILE": str(_trusting(registry.certificate, tmp_path))}
        env = trusted | {"BASE": built.debian(engine), "DOCKER_BUILDKIT": "0", "PUSH": "yes"}
        type_in(GUIDE, "make release", clone, {"registry.example/team": team, "v0.1.0": f"v{VERSION}"}, **env)
        assert registry.tags("team/dray") == registry.tags("team/charts/dray") == [VERSION]
    finally:
        registry.forget(f"{team}/dray:{VERSION}")
        registry.remove()
    names = [file.name.partition("-py3")[0] for file in sorted((clone / "dist").iterdir())]
    assert names == ["SHA256SUMS", f"dray-{VERSION}-chart.tgz", f"dray-{VERSION}", f"dray-{VERSION}.tar.gz"]
    with tarfile.open(clone / "dist" / f"dray-{VERSION}-chart.tgz") as packed:
        values = packed.extractfile("dray/values.yaml")
        assert values is not None
        assert yaml.safe_load(values)["image"]["registry"] == team


def _trusting(certificate: Path, folder: Path) -> Path:
    """What this machine trusts, and the certificate."""
    bundle = folder / "trusted.pem"
    bundle.write_bytes(Path("/etc/ssl/certs/ca-certificates.crt").read_bytes() + certificate.read_bytes())
    return bundle


def test_a_tag_that_is_not_there_is_refused() -> None:
    done = subprocess.run(["deploy/release", "v0.0.0-none"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "release: there is no v0.0.0-none" in done.stderr
