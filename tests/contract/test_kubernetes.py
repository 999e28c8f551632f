"""The Kubernetes backend: what only a real cluster has. Pods that never come up, are evicted or deleted; memory; secrets; security."""

from __future__ import annotations

import gc
import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from backend_kit import LEFT_SOCKETS, Bench, KubernetesLab, claimed, ended, on_a_loop, output

from dray.backends import Launching
from dray.cluster import cluster
from dray.pod import Box, Fault, Image, Pod, Shape, Stage
from dray.reason import Reason
from dray.record import Job, StepState
from dray.spec import EnvVar
from kit.images import Images
from kit.kubernetes import JobNamespace
from kit.nodes import NodeImages
from kit.process import until

pytestmark = LEFT_SOCKETS
KEY, MIB = (0, 1), 2**20


@pytest.fixture
def lab(job_namespace: JobNamespace, node_images: NodeImages, image: Images, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesLab]:
    yield KubernetesLab(job_namespace, node_images, image, monkeypatch)
    cluster.cache_clear()
    gc.collect()  # in this test, and in no later one: LEFT_SOCKETS


def pod_of(lab: KubernetesLab, job: Job) -> dict[str, Any]:
    (found,) = lab.namespace.pods(job.id)
    return found


def reason(pod: Pod) -> Reason | None:
    return pod.gone.reason if pod.gone else None


# --- what a step asks for


@on_a_loop
async def test_a_step_runs_its_own_command_where_and_with_what_it_says(lab: KubernetesLab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened({"source": "hello", "command": ["sh", "-c", 'echo "$0 $1 $PWD $WORD"'], "args": ["one", "two words"], "workdir": "/etc"})
        await bench.launch(job, 0, Launching({"WORD": "$(HOME) a=b"}))
        await bench.until(job, ended(0))
        assert await output(bench.backend, job, 0) == b"one two words /etc $(HOME) a=b\n"


@on_a_loop
async def test_an_image_of_no_user_runs_as_nobody_and_one_of_a_number_as_that(lab: KubernetesLab) -> None:
    numbered = lab.nodes.of(lab.image("id", "-u", user="1234"))
    async with Bench(lab) as bench:
        job = await bench.opened("id -u")
        job_of_its_own = await bench.open(_with_source(bench.job("id -u"), numbered))
        for each in (job, job_of_its_own):
            await bench.launch(each, 0)
            await bench.until(each, ended(0))
        assert [await output(bench.backend, each, 0) for each in (job, job_of_its_own)] == [b"65532\n", b"1234\n"]


def _with_source(job: Job, source: str) -> Job:
    (step,) = job.spec.steps
    return replace(job, spec=job.spec.model_copy(update={"steps": (step.model_copy(update={"source": source}),)}))


@on_a_loop
async def test_requests_count_once_and_limits_are_each_steps(lab: KubernetesLab) -> None:
    async with Bench(lab) as bench:
        big, small = {"cpu": "200m", "memory": "64Mi"}, {"cpu": "100m", "memory": "32Mi"}
        job = await bench.opened({"source": "hello", "resources": big}, {"source": "double", "resources": small})
        spec = pod_of(lab, job)["spec"]
        boxes = [container["resources"] for container in spec["containers"] if container["name"] != "keeper"]
        assert [found["limits"] for found in boxes] == [{"cpu": "200m", "memory": str(64 * MIB)}, {"cpu": "100m", "memory": str(32 * MIB)}]
        assert [found["requests"] for found in boxes] == [{"cpu": "0", "memory": "0"}] * 2
        keeper = next(container for container in spec["containers"] if container["name"] == "keeper")
        assert (spec.get("resources") or keeper["resources"])["requests"] == {"cpu": "200m", "memory": str(64 * MIB)}


@on_a_loop
async def test_what_the_job_says_of_its_pod_is_in_it(lab: KubernetesLab) -> None:
    tolerated = {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}
    asked = {"labels": {"team": "a"}, "nodeSelector": {"kubernetes.io/os": "linux"}, "tolerations": [tolerated], "serviceAccount": "default"}
    async with Bench(lab) as bench:
        found = pod_of(lab, await bench.opened("hello", kubernetes=asked))
        assert (found["metadata"]["labels"]["team"], found["spec"]["nodeSelector"]) == ("a", {"kubernetes.io/os": "linux"})
        assert tolerated in found["spec"]["tolerations"]
        assert found["spec"]["automountServiceAccountToken"] is False


# --- secrets


@on_a_loop
async def test_a_secret_of_the_operators_reaches_its_step_and_no_other_place(lab: KubernetesLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAY_SECRET_TOKEN", "open-sesame")
    async with Bench(lab) as bench:
        job = await bench.opened({"source": "echo got $TOKEN", "environment": [{"variable": "TOKEN", "secret": "token"}]})
        await bench.launch(job, 0, Launching({}, masked=("TOKEN",)))
        await bench.until(job, ended(0))
        assert await output(bench.backend, job, 0) == b"got open-sesame\n"
        assert b"open-sesame" not in await bench.backend.read_log(job, KEY, 0)
        assert "open-sesame" not in str(pod_of(lab, job))
        (secret,) = (found for found in lab.namespace.left(bench.instance) if found.startswith("secrets/"))
        assert secret == f"secrets/{(job.pod or '').partition('/')[2]}"


@on_a_loop
async def test_a_key_of_the_clusters_is_referred_to_and_never_read(lab: KubernetesLab) -> None:
    name = f"values-{lab.namespace.name[-8:]}"
    lab.namespace.kubectl("create", "secret", "generic", name, "--from-literal=a=hidden")
    async with Bench(lab) as bench:
        for key, wanted in (("a", b"hidden\n"), ("b", None)):
            value = {"namespace": lab.namespace.name, "kind": "Secret", "name": name, "key": key}
            variable = EnvVar.model_validate({"variable": "A", "cluster": value})
            job = bench.job("echo $A")
            (step,) = job.spec.steps
            job = await bench.open(replace(job, spec=job.spec.model_copy(update={"steps": (step.model_copy(update={"environment": (variable,)}),)})))
            if wanted is None:
                await bench.backend.pull(job, 0, False)
                pod = await bench.until(job, lambda pod: isinstance(pod.images.get(KEY), Fault))
                fault = pod.images[KEY]
                assert isinstance(fault, Fault)
                assert fault.reason is Reason.SECRET_NOT_FOUND
            else:
                await bench.launch(job, 0)
                await bench.until(job, ended(0))
                assert await output(bench.backend, job, 0) == wanted
    lab.namespace.kubectl("delete", "secret", name)


# --- how attempts end


@on_a_loop
async def test_a_further_attempt_runs_in_the_same_container_from_the_whole_input(lab: KubernetesLab) -> None:
    script = 'test "$DRAY_ATTEMPT" = 2 || { cat; exit 3; }; cat'
    async with Bench(lab) as bench:
        job = await bench.opened("hello", {"source": script, "retries": 1})
        await bench.launch(job, 0)
        await bench.launch(job, 1, Launching({"DRAY_ATTEMPT": "1"}, retries=1))
        pod = await bench.until(job, lambda pod: pod.boxes.get((1, 1), Box(Stage.MADE)).stage is Stage.ENDED)
        assert (pod.boxes[1, 1].code, 1 in pod.spent) == (3, False)
        again = job.with_step(1, StepState(attempt=2))
        await bench.launch(again, 1, Launching({"DRAY_ATTEMPT": "2"}))
        pod = await bench.until(again, lambda pod: pod.boxes.get((1, 2), Box(Stage.MADE)).stage is Stage.ENDED)
        assert (pod.boxes[1, 2].code, await output(bench.backend, again, 1)) == (0, b"hello\n")


@on_a_loop
async def test_a_step_that_takes_more_memory_than_it_may_is_told_of_and_its_box_is_spent(lab: KubernetesLab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened({"source": "head -c 100000000 /dev/zero | tail -c 90000000", "resources": {"memory": "20Mi"}}, "hello")
        await bench.launch(job, 0)
        pod = await bench.until(job, ended(0))
        assert pod.boxes[KEY].oom
        assert 0 in pod.spent


# --- how pods end


@on_a_loop
async def test_a_pod_that_no_node_takes_is_told_of_when_its_time_is_up(lab: KubernetesLab) -> None:
    lab.settings = replace(lab.settings, pending=2)
    async with Bench(lab) as bench:
        job = bench.job("hello", kubernetes={"nodeSelector": {"no/such": "node"}})
        job = replace(job, pod=await bench.backend.open(job))
        bench.jobs.append(job)
        assert (await bench.backend.look(job)).shape is Shape.OPENING
        pod = await bench.until(job, lambda pod: pod.gone is not None)
        assert (reason(pod), dict(pod.boxes)) == (Reason.UNSCHEDULABLE, {})
        assert pod.gone is not None
        assert "node" in pod.gone.message


@on_a_loop
async def test_a_pod_that_uses_more_disk_than_it_may_is_a_full_disk(lab: KubernetesLab) -> None:
    limit = {"type": "Container", "default": {"ephemeral-storage": "20Mi"}, "defaultRequest": {"ephemeral-storage": "1Mi"}}
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "disk"}, "spec": {"limits": [limit]}}
    lab.namespace.kubectl("apply", "-f", "-", sent=json.dumps(limits))
    try:
        async with Bench(lab) as bench:
            job = await bench.opened("head -c 200000000 /dev/zero; sleep 600")
            await bench.launch(job, 0)
            pod = await bench.until(job, lambda pod: pod.gone is not None, within=100)
            assert (reason(pod), set(pod.boxes)) == (Reason.DISK_FULL, {KEY})
    finally:
        lab.namespace.kubectl("delete", "limitrange", "disk")


@on_a_loop
async def test_an_eviction_is_told_apart_from_a_deletion(lab: KubernetesLab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("sleeps")
        await bench.until(job, claimed(0))
        name = pod_of(lab, job)["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": lab.namespace.name}}
        path = f"/api/v1/namespaces/{lab.namespace.name}/pods/{name}/eviction"
        lab.namespace.kubectl("create", "--raw", path, "-f", "-", sent=json.dumps(eviction))
        pod = await bench.until(job, lambda pod: pod.gone is not None)
        assert (reason(pod), set(pod.boxes)) == (Reason.EVICTED, {KEY})


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("came_up", [False, True])
@on_a_loop
async def test_a_pod_whose_node_was_deleted_is_told_of_when_the_cluster_removes_it(lab: KubernetesLab, came_up: bool) -> None:
    node = f"ghost-{secrets.token_hex(4)}"  # which has no kubelet, so what one would say is said here
    lab.namespace.kubectl("create", "-f", "-", sent=json.dumps(_node(node)))
    async with Bench(lab) as bench:
        job = bench.job("sleeps", kubernetes={"nodeSelector": {"ghost": node}, "tolerations": [{"operator": "Exists"}]})
        job = replace(job, pod=await bench.backend.open(job))
        bench.jobs.append(job)
        until(lambda: bool(pod_of(lab, job)["spec"].get("nodeName")), 30, "it has its node")
        if came_up:
            up = {"status": {"phase": "Running", "containerStatuses": [_running(container) for container in pod_of(lab, job)["spec"]["containers"]]}}
            lab.namespace.kubectl("patch", "pod", pod_of(lab, job)["metadata"]["name"], "--subresource=status", "-p", json.dumps(up))
        lab.namespace.kubectl("delete", "node", node)
        async with Bench(lab, bench.instance) as second:
            pod = await second.until(job, lambda pod: pod.gone is not None, within=150)
        assert (reason(pod), set(pod.boxes)) == (Reason.EVICTED, {KEY} if came_up else set())


def _node(name: str) -> dict[str, Any]:
    has = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    status = {"capacity": has, "allocatable": has, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"ghost": name}}, "status": status}


def _running(container: dict[str, Any]) -> dict[str, Any]:
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    return {"name": container["name"], "image": container["image"], "imageID": "", "ready": True, "restartCount": 0, "state": state}


@on_a_loop
async def test_an_operator_that_comes_after_a_pods_end_takes_all_of_it_for_begun(lab: KubernetesLab) -> None:
    async with Bench(lab) as first:
        job = await first.launched("sleeps", "hello")
        lab.namespace.kubectl("delete", "pod", pod_of(lab, job)["metadata"]["name"])
        async with Bench(lab, first.instance) as second:
            pod = await second.until(job, lambda pod: pod.gone is not None)
            assert (reason(pod), set(pod.boxes)) == (Reason.LOST, {(0, 1), (1, 1)})


@on_a_loop
async def test_a_job_that_had_a_pod_before_gets_a_new_one_and_the_old_one_goes(lab: KubernetesLab) -> None:
    async with Bench(lab) as bench:
        first = await bench.opened("sleeps")
        second = await bench.open(replace(first, pod=None, pods=1))
        assert second.pod != first.pod
        await bench.launch(second, 0)
        await bench.until(second, claimed(0))
        jobs = [found for found in lab.namespace.left(bench.instance) if found.startswith("jobs/")]
        assert jobs == [f"jobs/{(second.pod or '').partition('/')[2]}"]


@on_a_loop
async def test_what_the_cluster_refuses_is_told_of(lab: KubernetesLab) -> None:
    async with Bench(lab) as bench:
        job = bench.job("hello", kubernetes={"namespace": "no-such-namespace"})
        job = replace(job, pod=await bench.backend.open(job))
        pod = await bench.backend.look(job)
        assert (pod.shape, reason(pod), dict(pod.boxes)) == (Shape.ABSENT, Reason.START_FAILED, {})


@on_a_loop
async def test_an_image_that_says_what_it_runs_is_ready_before_its_turn(lab: KubernetesLab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened("hello", "double")
        await bench.backend.pull(job, 1, True)
        assert (await bench.until(job, lambda pod: (1, 1) in pod.images)).images[1, 1] is Image.READY
