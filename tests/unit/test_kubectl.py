"""`kubectl dray` where a real cluster would not tell: against an API server and a Dray whose answers are written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dray.cli.kubectl import forms, main
from dray.client.errors import Failed
from dray.cluster import cluster
from kit.answering import Answering, Asked, Told

TEAM = "/apis/dray.io/v1alpha1/namespaces/team/drayjobs"
JOB_ID = "11111111-2222-3333-4444-555555555555"
ENDED = {
    "jobID": JOB_ID,
    "status": "error",
    "stepsCompleted": 1,
    "startTime": "2026-01-01T00:00:00Z",
    "completionTime": "2026-01-01T00:00:09Z",
    "reason": "ExitCode",
    "steps": [{"name": "alpine", "state": "complete", "exitCode": 0}, {"name": "count", "state": "error", "exitCode": 3}],
    "conditions": [{"type": "Failed", "status": "True", "message": "step 2 ended with exit code 3"}],
}


def told(content: Any, status: int = 200) -> Told:
    return Told(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


def drayjob(name: str, status: Any = None, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": JOB_ID.lower(), "creationTimestamp": created, "labels": {"team": "a"}}
    steps = [{"source": "alpine"}, {"source": "alpine", "name": "count"}]
    whole = {"apiVersion": "dray.io/v1alpha1", "kind": "DrayJob", "metadata": metadata, "spec": {"steps": steps} | spec}
    return whole | ({"status": status} if status else {})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Answering]:
    """An API server, and Dray's API at the same address."""
    server = Answering()
    contexts = [{"name": name, "context": {"cluster": "it", "user": "me", "namespace": name}} for name in ("team", "other")]
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "team",
        "contexts": contexts,
        "clusters": [{"name": "it", "cluster": {"server": f"http://{server.address}"}}],
        "users": [{"name": "me", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(whole))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("DRAY_SERVER", f"http://{server.address}")
    monkeypatch.delenv("DRAY_TOKEN", raising=False)
    monkeypatch.setattr("dray.cli.kubectl.verbs._LOOK", 0.01)
    cluster.cache_clear()
    yield server
    cluster.cache_clear()
    server.close()


@pytest.fixture
def types(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """types("get", "words", code=0): what it wrote, stdout and then stderr."""

    def typed(*words: str, code: int = 0) -> str:
        capfd.readouterr()
        ended = main(words)
        seen = capfd.readouterr()
        assert ended == code, seen
        return seen.out + seen.err

    return typed


def test_a_job_is_shown_from_its_object_alone(api: Answering, types: Callable[..., str]) -> None:
    api.answers[f"{TEAM}/words"] = told(drayjob("words", ENDED))
    seen = types("get", "drayjob.dray.io/words")
    for part in ("id: words", "status: error", "step 2 ended with exit code 3", "took: 9.0 s", "count", "labels: team=a"):
        assert part in seen
    assert json.loads(types("get", "words", "-o", "json")) == drayjob("words", ENDED)
    assert types("get", "words", "-o", "name") == "drayjob.dray.io/words\n"
    assert all(asked.path.startswith(TEAM) for asked in api.asked)


def test_the_list_is_whole_newest_first_and_filtered(api: Answering, types: Callable[..., str]) -> None:
    older, newer, invalid = drayjob("older", ENDED), drayjob("newer", created="2026-01-02T00:00:00Z"), drayjob("odd", {"status": "invalid"})

    def page(asked: Asked) -> Told:
        assert "labelSelector=team%3Da" in asked.query
        if "continue=more" in asked.query:
            return told({"metadata": {}, "items": [newer, invalid]})
        return told({"metadata": {"continue": "more"}, "items": [older]})

    api.answers[TEAM] = page
    assert types("ls", "-l", "team=a", "-o", "name").split() == ["drayjob.dray.io/newer", "drayjob.dray.io/older", "drayjob.dray.io/odd"]
    assert types("ls", "-l", "team=a", "--status", "error", "-o", "name").split() == ["drayjob.dray.io/older"]
    assert "--limit" in types("ls", "-l", "team=a", "--limit", "1")
    api.answers["/apis/dray.io/v1alpha1/drayjobs"] = told({"metadata": {}, "items": [older]})
    assert "team/older" in types("ls", "-A")


def test_the_namespace_is_the_contexts_unless_one_is_named(api: Answering, types: Callable[..., str]) -> None:
    for namespace in ("team", "other", "third"):
        assert f"in namespace {namespace}" in types("get", "x", *{"team": (), "other": ("--context", "other")}.get(namespace, ("-n", namespace)), code=1)
    assert "no cluster to be found" in types("get", "x", "--context", "none", code=2)


def test_a_job_as_the_api_takes_it_becomes_an_object(api: Answering, types: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("name: My Words!\nsteps:\n- {source: alpine, resources: {cpu: 0.5}}\n")

    def create(asked: Asked) -> Told:
        assert "fieldValidation=Strict" in asked.query
        return told(json.loads(asked.body), 201)

    api.answers[f"POST {TEAM}"] = create
    made = json.loads(types("submit", str(tmp_path / "job.yaml"), "-o", "json"))
    assert made["metadata"]["name"].startswith("my-words-")
    assert made["spec"] == {"name": "My Words!", "steps": [{"source": "alpine", "resources": {"cpu": "0.5"}}]}
    assert types("submit", "--step", "alpine date").startswith("drayjob.dray.io/job-")


def test_a_manifest_says_its_namespace(api: Answering, types: Callable[..., str], tmp_path: Path) -> None:
    manifest = drayjob("words")
    del manifest["metadata"]["namespace"]
    (tmp_path / "job.json").write_text(json.dumps(manifest))
    path = "/apis/dray.io/v1alpha1/namespaces/third/drayjobs"
    api.answers[f"POST {path}"] = lambda asked: told(json.loads(asked.body), 201)
    assert types("submit", str(tmp_path / "job.json"), "-n", "third") == "drayjob.dray.io/words\n"
    manifest["metadata"]["namespace"] = "third"
    (tmp_path / "job.json").write_text(json.dumps(manifest))
    assert types("submit", str(tmp_path / "job.json")) == "drayjob.dray.io/words\n"
    assert "namespace third" in types("submit", str(tmp_path / "job.json"), "-n", "team", code=1)
    api.answers[f"POST {path}"] = told({"message": "exists"}, 409)
    assert "exists already" in types("submit", str(tmp_path / "job.json"), code=1)


@pytest.mark.parametrize("content", ["[]", "{", '{"kind": "Pod", "apiVersion": "v1"}', '{"kind": "DrayJob", "apiVersion": "v1"}'])
def test_what_is_no_job_is_refused(content: str) -> None:
    with pytest.raises(Failed):
        forms.body(content.encode(), None)


def test_run_tells_why_there_will_be_no_job(api: Answering, types: Callable[..., str]) -> None:
    invalid = {"status": "invalid", "conditions": [{"type": "Failed", "status": "True", "message": "that image is not allowed"}]}
    api.answers[f"POST {TEAM}"] = lambda asked: told(json.loads(asked.body), 201)

    def status(asked: Asked) -> Told:
        return told(drayjob("odd", invalid) if len(api.asked) > 4 else drayjob("odd"))

    api.answers[f"{TEAM}/odd"] = status
    api.answers[f"POST {TEAM}"] = told(drayjob("odd"), 201)
    assert "that image is not allowed" in types("run", "--step", "alpine", code=125)
    api.answers[f"{TEAM}/odd"] = Told(404)
    assert "there is no DrayJob odd" in types("run", "--step", "alpine", code=125)


def test_a_rerun_is_a_new_object_of_the_same_steps(api: Answering, types: Callable[..., str]) -> None:
    api.answers[f"{TEAM}/words"] = told(drayjob("words", ENDED, suspend=True))
    api.answers[f"POST {TEAM}"] = lambda asked: told(json.loads(asked.body), 201)
    made = json.loads(types("rerun", "words", "-o", "json"))
    assert made["metadata"]["name"].startswith("words-")
    assert made["metadata"]["labels"] == {"team": "a"}
    assert made["spec"] == drayjob("words")["spec"]
    api.answers[f"{TEAM}/words"] = told(drayjob("words", mirrorOf=JOB_ID))
    assert f"dray rerun {JOB_ID}" in types("rerun", "words", code=1)


def test_cancel_logs_and_output_need_a_job(api: Answering, types: Callable[..., str]) -> None:
    api.answers[f"{TEAM}/new"] = told(drayjob("new"))
    for verb in ("cancel", "logs", "output"):
        assert "has no job yet" in types(verb, "new", code=1)
    api.answers[f"{TEAM}/words"] = told(drayjob("words", ENDED))
    api.answers[f"POST /jobs/{JOB_ID}/cancel"] = told({"status": "running"})
    assert "is being stopped" in types("cancel", "words", "--always")
    assert api.asked[-1].query == "always=true"


def test_removing_goes_through_all_that_are_named(api: Answering, types: Callable[..., str]) -> None:
    api.answers[f"DELETE {TEAM}/one"] = api.answers[f"DELETE {TEAM}/two"] = told({})
    assert types("rm", "one", "drayjob/two") == ""
    assert api.paths() == [f"DELETE {TEAM}/one", f"DELETE {TEAM}/two"]


@pytest.mark.parametrize("name", ["../pods/x", "Words", "a?b", "", "pod/x"])
def test_a_name_that_is_none_never_becomes_a_path(api: Answering, types: Callable[..., str], name: str) -> None:
    types("rm", name, code=1)
    assert api.asked == []


def test_a_refusal_of_the_cluster_is_told(api: Answering, types: Callable[..., str]) -> None:
    api.answers[TEAM] = told({"message": "you may not"}, 403)
    assert "you may not" in types("ls", code=1)


def test_doctor_tells_what_is_wrong(api: Answering, types: Callable[..., str]) -> None:
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    api.answers |= {
        "/version": told({"gitVersion": "v1.34.0"}),
        TEAM: told({"items": [], "metadata": {}}),
        reviews: told({"status": {"allowed": True}}),
        "/healthz": told({"status": "ok"}),
        "/jobs": told([]),
    }
    assert [line.split()[:2] for line in types("doctor").splitlines()] == [["ok", name] for name in ("cluster", "DrayJobs", "permissions", "server", "token")]
    api.answers |= {reviews: told({"status": {"allowed": False}}), TEAM: Told(404), "/healthz": Told(500)}
    seen = types("doctor", code=1)
    for part in ("crds/drayjob.yaml", "may not create, get, list, delete", "port-forward"):
        assert part in seen
