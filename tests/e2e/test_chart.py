"""charts/dray, installed on a real cluster. The tests share one release and go from its install to its end, in this order."""

from __future__ import annotations

import json
from collections.abc import Iterator

import docker
import pytest

from kit import chart
from kit.chart import Release
from kit.installed import NAME
from kit.kubernetes import kubectl, require_cluster
from kit.process import until
from kit.registry import Registry

pytestmark = [pytest.mark.ours, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=["kubernetes", pytest.param("docker", marks=pytest.mark.full)])
def release(engine: docker.DockerClient, request: pytest.FixtureRequest) -> Iterator[Release]:
    require_cluster()
    chart.require_helm()
    registry = Registry(engine)
    try:
        installed = Release(engine, registry, {"backend": request.param})
        try:
            yield installed
        finally:
            installed.show()
            installed.remove()
    finally:
        registry.remove()


def test_helm_test_runs_a_job_by_the_api_and_a_drayjob(release: Release) -> None:
    told = release.typed("helm --namespace dray test", "--timeout", "200s")
    assert told.count("Phase:          Succeeded") >= 2
    assert json.loads(release.kubectl("get", "drayjobs", "-o", "json"))["items"] == []


def test_a_job_is_run_by_rest(release: Release) -> None:
    assert release.output(release.post(release.step("echo hello"), release.step("tr a-z A-Z"))) == "HELLO\n"


def test_the_api_wants_the_token(release: Release) -> None:
    right, release.token = release.token, "sixteen-wrong-characters"
    try:
        assert release.ask("GET", "/jobs").status_code == 401
    finally:
        release.token = right


def test_a_large_output_is_read_at_any_api(release: Release) -> None:
    job = release.post(release.step("yes | head -c 300000"))
    assert len(release.output(job)) == 300_000


def test_a_job_is_run_by_kubectl(release: Release) -> None:
    body = {"apiVersion": "dray.io/v1alpha1", "kind": "DrayJob", "metadata": {"name": "words"}, "spec": {"steps": [release.step("echo hello")]}}
    release.kubectl("apply", "-f", "-", sent=json.dumps(body))
    release.kubectl("wait", "--for=condition=Succeeded", "drayjob/words", "--timeout=60s")


def test_no_job_is_lost_when_all_pods_of_a_part_are_deleted(release: Release) -> None:
    jobs = [release.post(release.step("sleep 6; echo one"), release.step("cat; sleep 2; echo two")) for _ in range(3)]
    until(lambda: release.record(jobs[0])["steps"][0]["state"] == "running", 120, "the first one runs")
    for part in ("operator", "api", "redis"):
        release.delete_pods(part)
        jobs.append(release.post(release.step("echo one"), release.step("cat; echo two")))
    assert [release.output(job) for job in jobs] == ["one\ntwo\n"] * 6


def test_an_upgrade_and_a_rollback_lose_no_job_and_keep_token_and_password(release: Release) -> None:
    secrets = [release.kubectl("get", "secret", f"{NAME}-{name}", "-o", "jsonpath={.data}") for name in ("token", "redis")]
    jobs = [release.post(release.step("sleep 8; echo one"), release.step("cat; echo two")) for _ in range(2)]
    release.upgrade(settings={"LOG_LEVEL": "debug"}, api={"replicas": 1})
    jobs.append(release.post(release.step("echo one"), release.step("cat; echo two")))
    release.helm("rollback", NAME, "1", "--wait", "--timeout", "200s")
    assert [release.output(job) for job in jobs] == ["one\ntwo\n"] * 3
    assert [release.kubectl("get", "secret", f"{NAME}-{name}", "-o", "jsonpath={.data}") for name in ("token", "redis")] == secrets
    assert release.kubectl("get", "deployment", f"{NAME}-api", "-o", "jsonpath={.spec.replicas}") == "2"


def test_uninstalling_leaves_what_keep_says_and_nothing_else(release: Release) -> None:
    release.uninstall()
    kinds = "all,secrets,configmaps,serviceaccounts,roles,rolebindings,ingresses,networkpolicies,poddisruptionbudgets,persistentvolumeclaims,leases"
    until(lambda: release.pods("operator") == [], 60, "its pods are gone")
    left = set(release.kubectl("get", kinds, "-o", "name").split())
    assert left - {"configmap/kube-root-ca.crt", "serviceaccount/default"} == {
        f"persistentvolumeclaim/data-{NAME}-redis-0",
        f"persistentvolumeclaim/{NAME}-outputs",
    }
    in_cluster = kubectl("get", "clusterroles,clusterrolebindings", "-o", "name").split()
    assert [name for name in in_cluster if release.namespace in name] == []
    until(lambda: f"namespace/{release.namespace}-jobs" not in kubectl("get", "namespaces", "-o", "name").split(), 60, "the namespace of jobs is gone")
    kubectl("get", "crd", "drayjobs.dray.io")
