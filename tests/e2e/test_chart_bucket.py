"""charts/dray with its outputs in a bucket: that of a real S3 server in the cluster."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from kit import bucket, chart
from kit.bucket import KEY, PROGRAM, SECRET
from kit.chart import Release
from kit.kubernetes import require_cluster
from kit.process import until
from kit.registry import Registry

pytestmark = [pytest.mark.ours, pytest.mark.full, pytest.mark.timeout(600)]

LABELS = {"app": "bucket"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bucket's, on the cluster's only node, which is this machine."""
    made = tmp_path / "buckets" / bucket.NAME
    made.mkdir(parents=True)
    return made


@pytest.fixture
def release(engine: docker.DockerClient, folder: Path) -> Iterator[Release]:
    require_cluster()
    chart.require_helm()
    bucket.require()
    registry = Registry(engine)
    values = {"outputs": {"url": f"s3://{bucket.NAME}/dray", "secret": "bucket"}}
    try:
        release = Release(engine, registry, values, _objects(registry.push(_image(engine), "bucket"), folder.parent))
        try:
            yield release
        finally:
            release.show()
            release.remove()
    finally:
        registry.remove()


def _image(engine: docker.DockerClient) -> str:
    """The server and nothing else."""
    archive, program = io.BytesIO(), shutil.which(PROGRAM)
    assert program
    with tarfile.open(fileobj=archive, mode="w") as writer:
        writer.add(program, PROGRAM)
    engine.api.import_image_from_data(archive.getvalue(), repository="dray-test/bucket", tag="latest")
    return "dray-test/bucket"


def _objects(image: str, folder: Path) -> list[dict[str, Any]]:
    """A server of the folder, and what leads Dray to it, as the chart wants it: a Secret whose keys are variables."""
    command = [f"/{PROGRAM}", "--access", KEY, "--secret", SECRET, "posix", "--sidecar", "/metadata", "/buckets"]
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("buckets", "metadata")]
    pod = {
        "containers": [{"name": "server", "image": image, "command": command, "volumeMounts": mounts}],
        "volumes": [{"name": "buckets", "hostPath": {"path": str(folder)}}, {"name": "metadata", "emptyDir": {}}],
    }
    template = {"metadata": {"labels": LABELS}, "spec": pod}
    deployment = {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template, "strategy": {"type": "Recreate"}}
    login = {"AWS_ENDPOINT_URL": "http://bucket:7070", "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    named = {"metadata": {"name": "bucket"}}
    return [
        {"apiVersion": "v1", "kind": "Secret", **named, "stringData": login},
        {"apiVersion": "v1", "kind": "Service", **named, "spec": {"selector": LABELS, "ports": [{"port": 7070}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", **named, "spec": deployment},
    ]


def test_api_and_operators_meet_in_the_bucket_and_lose_nothing_while_it_is_away(release: Release, folder: Path) -> None:
    first = release.post(release.step("yes | head -c 300000"))
    assert len(release.output(first)) == 300_000
    assert _objects_in(folder) == [f"dray/{first}/0"]
    release.kubectl("scale", "deployment/bucket", "--replicas=0")
    release.kubectl("wait", "--for=delete", "pod", "-l", "app=bucket", "--timeout=60s")
    second = release.post(release.step("yes | head -c 300000"))
    assert release.ask("DELETE", f"/jobs/{first}").status_code == 204
    until(lambda: "backing off: output store" in release.kubectl("logs", "-l", "app.kubernetes.io/component=operator", "--tail=-1"), 100, "it is missed")
    release.kubectl("scale", "deployment/bucket", "--replicas=1")
    assert len(release.output(second)) == 300_000
    until(lambda: _objects_in(folder) == [f"dray/{second}/0"], 60, "the first one's is gone")


def _objects_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
