"""DrayJobs in a real cluster, run by a real `dray serve --kubernetes` with the permissions of crds/rbac.yaml on a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from redis import Redis

import images
from kit.images import Images
from kit.kubernetes import Namespace, Refused, kubectl
from kit.process import until
from kit.serving import Served

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("drayjob-*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the host's that jobs may mount and write to."""
    made = tmp_path_factory.mktemp("mounted")
    made.chmod(0o777)
    return made


@pytest.fixture(scope="module")
def dray(team: Namespace, redis: None, engine: docker.DockerClient, folder: Path) -> Iterator[Served]:
    """One for all tests here that do not disturb it."""
    args = ["--kubernetes", "--namespaces", team.name, "--mirror-jobs", team.name]
    served = Served(engine, args, {"KUBECONFIG": str(team.kubeconfig), "DRAY_JOBS": "4", "DRAY_HOST_PATHS": str(folder)})
    yield served
    served.close()


# --- a job's life


def test_a_drayjob_is_run_and_shown(team: Namespace, dray: Served, image: Images) -> None:
    name = team.apply("shown", image("echo", "hello"), {"name": "shout", "source": image("tr", "a-z", "A-Z")})
    status = team.wait(name)
    assert (status["status"], status["progress"], status["stepsCompleted"]) == ("complete", "2/2", 2)
    assert [(step["name"], step["exitCode"]) for step in status["steps"]][1] == ("shout", 0)
    assert status["jobID"] == team.get(name)["metadata"]["uid"].upper()
    assert dray.output(status["jobID"]) == b"HELLO\n"
    assert dray.http.get(f"/jobs?label=dray.io/drayjob={name}").json()[0]["id"] == status["jobID"]
    assert team.events(name) == [("Normal", "Accepted"), ("Normal", "Running"), ("Normal", "Succeeded")]


def test_get_shows_what_a_person_wants_to_know(team: Namespace, dray: Served, image: Images) -> None:
    name = team.apply("columns", image.shell("exit 3"), image("cat"))
    team.wait(name, "Failed")
    heads, row = [line.split() for line in team.kubectl("get", "dj", name).splitlines()]
    assert heads == ["NAME", "STATUS", "STEPS", "AGE", "DURATION", "REASON"]
    assert row[:3] == [name, "error", "0/2"]
    assert row[-1] == "ExitCode"
    assert name in team.kubectl("get", "all")


def test_a_failed_step_is_explained(team: Namespace, dray: Served, image: Images) -> None:
    name = team.apply("explained", image("true"), {"name": "look up", "source": image.shell("echo 'no such word' >&2; exit 4")})
    status = team.wait(name, "Failed")
    assert status["stderr"] == ["no such word"]
    assert status["steps"][1]["exitCode"] == 4
    failed = next(condition for condition in status["conditions"] if condition["type"] == "Failed")
    assert failed["message"] == "step 2 (look up): exit code 4"
    assert failed["observedGeneration"] == 1
    assert team.events(name)[-1] == ("Warning", "Failed")


def test_deleting_cancels_and_removes_everything(team: Namespace, dray: Served, image: Images) -> None:
    name = team.apply("deleted", image("sleep", "300"))
    job_id = team.wait(name, "Running")["jobID"]
    until(lambda: bool(dray.containers(job_id)), 20, "its container is there")
    team.delete(name)
    assert dray.http.get(f"/jobs/{job_id}").status_code == 404
    assert dray.containers(job_id) == []
    assert dray.volumes(job_id) == []


def test_what_always_runs_does_so_before_a_deletion_ends(team: Namespace, dray: Served, image: Images, folder: Path) -> None:
    mount = {"hostPath": str(folder), "path": "/data"}
    name = team.apply("tidied", image("sleep", "300"), {"source": image.shell("echo $DRAY_REASON > /data/reason"), "always": True, "mounts": [mount]})
    job_id = team.wait(name, "Running")["jobID"]
    until(lambda: dray.record(job_id)["steps"][0]["state"] == "running", 20, "the first step runs")
    team.delete(name, wait=False)
    until(lambda: dray.http.get(f"/jobs/{job_id}").status_code == 404, 30, "the job is gone")
    assert (folder / "reason").read_text() == "cancelled\n"
    until(lambda: name not in team.all(), 10, "the object is gone")


def test_an_object_is_deleted_when_its_time_is_over(team: Namespace, dray: Served, image: Images) -> None:
    name = team.apply("short-lived", image("true"), ttlSecondsAfterFinished=1)
    until(lambda: name not in team.all(), 30, "it is deleted")
    assert dray.http.get(f"/jobs?name={name}").json() == []


# --- suspend


def test_a_suspended_job_begins_when_it_is_released(team: Namespace, dray: Served, image: Images) -> None:
    name = team.apply("held", image("true"), suspend=True)
    team.until_status(name, "suspended")
    assert ("Normal", "Suspended") in team.events(name)
    assert "jobID" not in team.status(name)
    team.kubectl("patch", "drayjob", name, "--type=merge", "-p", '{"spec":{"suspend":false}}')
    assert team.wait(name)["observedGeneration"] == 2


def test_suspending_lets_the_current_step_finish_and_begins_no_other(team: Namespace, dray: Served, image: Images) -> None:
    name = team.apply("paused", image.shell("sleep 2; echo one"), image("cat"))
    job_id = team.wait(name, "Running")["jobID"]
    until(lambda: dray.record(job_id)["steps"][0]["state"] == "running", 20, "the first step runs")
    team.kubectl("patch", "drayjob", name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    until(lambda: team.status(name).get("progress") == "1/2", 20, "its first step is complete")
    assert next(each for each in team.status(name)["conditions"] if each["type"] == "Running")["reason"] == "Suspended"
    team.kubectl("patch", "drayjob", name, "--type=merge", "-p", '{"spec":{"suspend":false}}')
    team.wait(name)
    assert dray.output(job_id) == b"one\n"


# --- values from the cluster


def reference(kind: str, name: str, key: str, **more: Any) -> dict[str, Any]:
    return {kind: {"name": name, "key": key, **more}}


def test_values_come_from_secrets_and_configmaps(team: Namespace, dray: Served, image: Images) -> None:
    team.kubectl("create", "secret", "generic", "db", "--from-literal=password=swordfish-7431")
    team.kubectl("create", "configmap", "place", "--from-literal=city=Lisbon")
    environment = [
        {"variable": "PASSWORD", "valueFrom": reference("secretKeyRef", "db", "password")},
        {"variable": "CITY", "valueFrom": reference("configMapKeyRef", "place", "city")},
        {"variable": "NONE", "valueFrom": reference("secretKeyRef", "db", "user", optional=True)},
    ]
    name = team.apply("resolved", image.shell('echo "$CITY ${NONE-unset} $PASSWORD"; echo "$PASSWORD" >&2; exit 1'), environment=environment)
    status = team.wait(name, "Failed")
    assert dray.log(status["jobID"])[0].startswith("Lisbon unset ")
    assert status["stderr"]
    seen = team.kubectl("get", "drayjob", name, "-o", "yaml") + team.kubectl("get", "events", "-o", "yaml") + "\n".join(dray.log(status["jobID"]))
    with Redis(unix_socket_path=f"{dray.data_dir}/redis/redis.sock") as redis:
        dumped = [redis.dump(key) for key in redis.scan_iter()]
        hashes = [redis.hgetall(key) for key in redis.scan_iter(_type="hash")]
    assert "swordfish-7431" not in seen + dray.process.output + repr(hashes)
    assert not any(b"swordfish-7431" in kept for kept in dumped)


def test_a_value_that_is_not_there_fails_the_step(team: Namespace, dray: Served, image: Images) -> None:
    variable = {"variable": "A", "valueFrom": reference("secretKeyRef", "nowhere", "password")}
    name = team.apply("valueless", {"source": image("true"), "environment": [variable]})
    status = team.wait(name, "Failed")
    assert status["reason"] == "SecretNotFound"
    assert f"Secret {team.name}/nowhere" in next(each for each in status["conditions"] if each["type"] == "Failed")["message"]


# --- what the API server refuses


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.steps: Required"),
        ({"steps": []}, "spec.steps"),
        ({"steps": [{"name": "a"}]}, "spec.steps[0].source: Required"),
        ({"steps": [{"source": "two words"}]}, "spec.steps[0].source"),
        ({"steps": [{"source": "a", "output": "stdin"}]}, "spec.steps[0].output"),
        ({"steps": [{"source": "a", "retries": 11}]}, "spec.steps[0].retries"),
        ({"steps": [{"source": "a", "timeout": 0}]}, "spec.steps[0].timeout"),
        ({"steps": [{"source": "a", "always": True}]}, "spec.steps"),
        ({"steps": [{"source": "a"}, {"source": "b", "always": True}, {"source": "c"}]}, "spec.steps"),
        ({"steps": [{"source": "a"}, {"source": "b", "always": True, "output": "stderr"}]}, "spec.steps[1].always"),
        ({"steps": [{"source": "a", "mounts": [{"path": "/data"}]}]}, "spec.steps[0].mounts[0]"),
        ({"steps": [{"source": "a", "mounts": [{"path": "/a", "volume": "v"}] * 2}]}, "spec.steps[0].mounts[1]"),
        ({"steps": [{"source": "a"}], "environment": [{"variable": "A"}]}, "spec.environment[0]"),
        ({"steps": [{"source": "a"}], "environment": [{"variable": "A", "value": "b", "secret": "c"}]}, "spec.environment[0]"),
        ({"steps": [{"source": "a"}], "environment": [{"variable": "A=", "value": "b"}]}, "spec.environment[0].variable"),
        ({"steps": [{"source": "a"}], "environment": [{"variable": "A", "valueFrom": {}}]}, "spec.environment[0].valueFrom"),
        ({"steps": [{"source": "a"}], "labels": {"dray.io/drayjob": "b"}}, "spec.labels"),
        ({"steps": [{"source": "a", "source2": "b"}]}, "spec.steps[0].source2"),
    ],
)
def test_a_bad_object_is_refused_by_its_field(team: Namespace, spec: dict[str, Any], field: str) -> None:
    body = {"apiVersion": "dray.io/v1alpha1", "kind": "DrayJob", "metadata": {"name": "bad"}, "spec": spec}
    with pytest.raises(Refused) as refused:
        team.kubectl("apply", "--dry-run=server", "-f", "-", sent=json.dumps(body))
    assert field in str(refused.value)


def test_steps_cannot_be_changed(team: Namespace) -> None:
    name = team.apply("fixed", "one", suspend=True)
    for patch, field in (({"steps": [{"source": "two"}]}, "spec.steps"), ({"timeout": 5}, "spec.timeout"), ({"environment": []}, "spec.environment")):
        with pytest.raises(Refused, match=field.replace(".", r"\.")):
            team.kubectl("patch", "drayjob", name, "--type=merge", "-p", json.dumps({"spec": patch}))


def test_explain_is_worth_reading(cluster: None) -> None:
    text = kubectl("explain", "drayjob.spec.steps")
    assert "standard input" in text
    assert "<no description>" not in text


def test_what_only_the_operator_can_know_is_told_in_the_status(team: Namespace, dray: Served) -> None:
    name = team.apply("unfit", {"source": "team/UPPER"})
    status = team.wait(name, "Accepted=False")
    assert (status["status"], status["reason"]) == ("invalid", "Invalid")
    assert "steps[0].source" in status["conditions"][0]["message"]
    mount = {"hostPath": "/etc", "path": "/data"}
    name = team.apply("greedy", {"source": "a", "mounts": [mount]})
    assert team.wait(name, "Accepted=False")["reason"] == "MountNotAllowed"
    team.delete(name)


# --- many, and large


def test_a_large_object(team: Namespace, dray: Served, image: Images) -> None:
    environment = [{"variable": f"V{number}", "value": f"{number:010}" * 1000} for number in range(30)]
    body = {"apiVersion": "dray.io/v1alpha1", "kind": "DrayJob", "metadata": {"name": "large"}}
    spec = {"steps": [{"source": image.shell("echo ${#V29}")}], "environment": environment}
    team.kubectl("create", "-f", "-", sent=json.dumps(body | {"spec": spec}))
    status = team.wait("large")
    assert dray.output(status["jobID"]).strip() == b"10000"
    assert len(json.dumps(status)) < 3000
    assert "annotations" not in team.get("large")["metadata"]


@pytest.mark.timeout(400)
def test_many_at_once(team: Namespace, dray: Served, image: Images) -> None:
    many = 200 if os.environ.get("DRAY_TEST_FULL") == "1" else 20
    source = image("true")
    bodies = [{"apiVersion": "dray.io/v1alpha1", "kind": "DrayJob", "metadata": {"name": f"many-{number}"}} for number in range(many)]
    items = [body | {"spec": {"steps": [{"source": source}]}} for body in bodies]
    team.kubectl("apply", "-f", "-", sent=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def ended() -> bool:
        mine = [status.get("status") for name, status in team.all().items() if name.startswith("many-")]
        return mine == ["complete"] * many

    until(ended, 280, f"{many} are complete")
    team.delete(*(body["metadata"]["name"] for body in bodies))  # type: ignore[index]


# --- jobs that came another way


def test_a_job_of_the_api_is_shown_and_not_run_again(team: Namespace, dray: Served, image: Images) -> None:
    posted = {"steps": [{"source": image("echo", "hello"), "environment": [{"variable": "KEY", "value": "open-sesame"}]}]}
    job_id = dray.post(posted)
    name = f"job-{job_id.lower()}"
    until(lambda: name in team.all(), 20, "it is shown")
    assert team.wait(name)["jobID"] == job_id
    assert "open-sesame" not in team.kubectl("get", "drayjob", name, "-o", "yaml")
    assert [job["id"] for job in dray.http.get("/jobs?limit=1000").json() if job["labels"].get("dray.io/drayjob") == name] == []
    dray.http.delete(f"/jobs/{job_id}")
    until(lambda: name not in team.all(), 20, "it is no longer shown")


# --- beside it


def plugin(*args: str, team: Namespace, dray: Served) -> subprocess.CompletedProcess[bytes]:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "KUBECONFIG": str(team.kubeconfig), "DRAY_SERVER": dray.url}
    return subprocess.run(["kubectl", "dray", *args], env=env, capture_output=True, timeout=60, check=False)


def test_the_plugin_follows_a_log_and_fetches_an_output(team: Namespace, dray: Served, image: Images) -> None:
    name = team.apply("plugged", image.shell("echo one; sleep 1; printf 'two\\0'"))
    team.wait(name, "Running")
    assert plugin("logs", "-f", name, team=team, dray=dray).stdout.splitlines()[0] == b"one"
    team.wait(name)
    assert plugin("output", name, team=team, dray=dray).stdout == b"one\ntwo\0"
    assert plugin("logs", name, team=team, dray=dray).stdout.startswith(b"one\n")
    absent = plugin("logs", "nothing", team=team, dray=dray)
    assert absent.returncode == 1
    assert b"there is no DrayJob nothing" in absent.stderr


def test_metrics_and_readiness(team: Namespace, dray: Served, image: Images) -> None:
    team.wait(team.apply("counted", image("true")))
    assert dray.http.get("/readyz").status_code == 200
    metrics = dray.http.get("/metrics").text
    for name in ("reconciles_total", "reconcile_duration_seconds_count", "queue_depth", "errors_total", "objects", "leading 1.0"):
        assert f"dray_kubernetes_{name}" in metrics


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_ends_as_it_should(team: Namespace, dray: Served, engine: docker.DockerClient, example: Path) -> None:
    images.ensure(engine)
    for document in yaml.safe_load_all(example.read_text()):
        team.kubectl("apply", "-f", "-", sent=json.dumps(document))
        if document["kind"] == "DrayJob":
            name = document["metadata"]["name"]
            wanted = "Failed" if "failing" in name else "Succeeded"
            if document["spec"].get("suspend"):
                team.until_status(name, "suspended")
                team.kubectl("patch", "drayjob", name, "--type=merge", "-p", '{"spec":{"suspend":false}}')
            team.wait(name, wanted)


def test_without_a_cluster_it_says_what_is_missing(serve: Callable[..., Served]) -> None:
    with pytest.raises(AssertionError, match="no cluster to be found"):
        serve("--kubernetes", KUBECONFIG="/nowhere")
