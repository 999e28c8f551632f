"""The DrayJob resource: its schema beside the API's, what is done about an object, and what its status says. No cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from dray.clock import SECOND
from dray.crd import measures
from dray.crd.decide import Action, Cancel, Create, Delete, Doom, Hold, HoldBack, Publish, Refusal, Release, decide
from dray.crd.drayjob import FINALIZER, DrayJob
from dray.crd.status import of_record, transitions
from dray.errors import Invalid
from dray.reason import Reason
from dray.record import Job, Phase, StepState, Told, new_job
from dray.secrets import NoSecret, Secrets
from dray.settings import Settings
from dray.spec import JobSpec, parse

CRDS = Path(__file__).parents[2] / "crds"
ONLY_IN_THE_CLUSTER = {"spec.suspend", "spec.mirrorOf"}
UID = "0e4bd3f1-6d5c-4f7e-9a43-3a4c5e6f7a8b"
NOW = 1_800_000_000 * SECOND
CREATED = "2027-01-15T07:59:00Z"  # a minute before NOW


# --- the schema


def definition() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CRDS / "drayjob.yaml").read_text())
    return found


def crd_fields() -> dict[str, dict[str, Any]]:
    schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return dict(_crd(schema["spec"], "spec"))


def _crd(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from _crd(field, f"{path}.{name}")
    if "items" in schema:
        yield from _crd(schema["items"], f"{path}[]")


def api_fields() -> dict[str, dict[str, Any]]:
    schema = JobSpec.model_json_schema()
    return dict(_api(schema, "spec", schema["$defs"]))


def _api(schema: dict[str, Any], path: str, models: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A field that may be null is what else it may be: null counts as absent."""
    if "$ref" in schema:
        schema = schema | models[schema["$ref"].rsplit("/", 1)[1]]
    branches = [branch for branch in schema.get("anyOf", ()) if branch != {"type": "null"}]
    if len(branches) == 1:
        schema = schema | branches[0]
        if "$ref" in schema:
            schema = schema | models[schema["$ref"].rsplit("/", 1)[1]]
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from _api(field, f"{path}.{name}", models)
    if "items" in schema:
        yield from _api(schema["items"], f"{path}[]", models)


def test_every_field_of_the_api_is_in_the_resource_and_no_other() -> None:
    api = set(api_fields())
    crd = {path for path in crd_fields() if ".valueFrom" not in path}
    assert sorted(api - crd) == []
    assert sorted(crd - api) == sorted(ONLY_IN_THE_CLUSTER)


def test_a_client_of_the_api_may_not_name_a_value_of_the_cluster() -> None:
    cluster = {"namespace": "kube-system", "kind": "Secret", "name": "a", "key": "b"}
    with pytest.raises(Invalid):
        parse({"steps": [{"source": "a", "environment": [{"variable": "A", "cluster": cluster}]}]})
    kept = parse({"steps": [{"source": "a", "environment": [{"variable": "A", "value": "b", "cluster": cluster}]}]})
    assert "cluster" not in kept.model_dump_json(exclude_unset=True)


def test_drays_own_labels_are_refused_of_a_client() -> None:
    with pytest.raises(Invalid, match=r"labels.dray.io/drayjob"):
        parse({"steps": [{"source": "a"}], "labels": {"dray.io/drayjob": "b"}})


@pytest.mark.parametrize(
    ("bound", "word"),
    [("minItems", "minItems"), ("maxItems", "maxItems"), ("minLength", "minLength"), ("minimum", "minimum"), ("maximum", "maximum")],
)
def test_the_bounds_are_the_apis(bound: str, word: str) -> None:
    crd = crd_fields()
    differing = {path: field[bound] for path, field in api_fields().items() if bound in field and crd[path].get(word) != field[bound]}
    assert differing == {}


def test_no_text_is_bounded_tighter_than_the_api_does() -> None:
    crd = crd_fields()
    tighter = {path for path, field in api_fields().items() if field.get("maxLength", 0) > crd[path].get("maxLength", 0)}
    assert tighter == set()


def test_the_words_that_may_be_said_are_the_apis() -> None:
    crd = crd_fields()
    assert {path for path, field in api_fields().items() if "enum" in field and field["enum"] != crd[path].get("enum")} == set()


def test_every_field_is_explained() -> None:
    assert [path for path, field in crd_fields().items() if "description" not in field and not path.endswith(("command[]", "args[]"))] == []


def test_required_fields_are_the_apis() -> None:
    crd = crd_fields()
    assert {path for path, field in api_fields().items() if set(field.get("required", ())) != set(crd[path].get("required", ()))} == set()


# --- what an object says


def drayjob(status: dict[str, Any] | None = None, deleted: str | None = None, finalized: bool = True, **spec: Any) -> DrayJob:
    metadata: dict[str, Any] = {"name": "word", "namespace": "team", "uid": UID, "generation": 1, "resourceVersion": "7", "creationTimestamp": CREATED}
    metadata["finalizers"] = [FINALIZER] if finalized else []
    if deleted:
        metadata["deletionTimestamp"] = deleted
    steps = [{"source": "one"}, {"source": "two", "name": "second"}]
    return DrayJob({"metadata": metadata, "spec": {"steps": steps} | spec, "status": status or {}})


def record(**changes: Any) -> Job:
    return replace(new_job(UID.upper(), drayjob().job_spec, NOW - 60 * SECOND), **changes)


def told(of: DrayJob, job: Job) -> DrayJob:
    """The object once its status is as the record."""
    return DrayJob({**of.body, "status": of_record(of, job, NOW)})


def test_a_job_has_its_objects_uid_name_and_namespace() -> None:
    spec = drayjob(labels={"team": "a"}).job_spec
    assert drayjob().job_id == UID.upper()
    assert spec.name == "word"
    assert spec.labels == {"team": "a", "dray.io/namespace": "team", "dray.io/drayjob": "word"}


def test_a_job_runs_on_the_backend_that_its_object_names() -> None:
    assert drayjob(backend="kubernetes").job_spec.backend == "kubernetes"
    with pytest.raises(Invalid, match="kubernetes: the block kubernetes is for jobs on Kubernetes"):
        drayjob(backend="docker", kubernetes={}).job_spec  # noqa: B018


def test_a_value_of_the_cluster_is_of_the_objects_own_namespace() -> None:
    reference = {"name": "db", "key": "password", "namespace": "kube-system"}
    spec = drayjob(environment=[{"variable": "A", "valueFrom": {"secretKeyRef": reference}}]).job_spec
    assert spec.environment[0].cluster is not None
    assert (spec.environment[0].cluster.namespace, spec.environment[0].cluster.kind) == ("team", "Secret")
    assert JobSpec.model_validate_json(spec.model_dump_json(exclude_unset=True)) == spec


def test_an_operator_without_a_cluster_says_so_of_a_value_in_it() -> None:
    spec = drayjob(environment=[{"variable": "A", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]).job_spec
    with pytest.raises(NoSecret, match="key 'password' of Secret team/db: this operator was started without --kubernetes"):
        Secrets(Settings(), {}).of(spec.environment[0])


# --- what is done about it


def next_of(of: DrayJob, job: Job | None = None, refusal: Refusal | None = None, now: int = NOW) -> Action | None:
    return decide(of, job, refusal, now)


def test_an_object_is_held_back_before_its_job_is_made() -> None:
    assert next_of(drayjob(finalized=False)) == HoldBack()
    assert next_of(drayjob()) == Create()


def test_a_suspended_object_has_no_job_yet() -> None:
    found = next_of(drayjob(suspend=True))
    assert isinstance(found, Publish)
    assert found.status["status"] == "suspended"
    waiting = DrayJob({**drayjob(suspend=True).body, "status": found.status})
    assert next_of(waiting) is None


def test_suspend_holds_and_releases_a_job() -> None:
    assert next_of(drayjob(suspend=True), record(phase=Phase.RUNNING)) == Hold(True)
    assert next_of(drayjob(), record(phase=Phase.RUNNING, told=Told(held=True))) == Hold(False)


def test_the_record_is_shown_once() -> None:
    job = record(phase=Phase.RUNNING, started_at=NOW)
    assert isinstance(next_of(drayjob(), job), Publish)
    assert next_of(told(drayjob(), job), job) is None


def test_a_refused_object_is_never_run() -> None:
    found = next_of(drayjob(finalized=False), refusal=Refusal("Invalid", "steps[0].source: is wrong"))
    assert isinstance(found, Publish)
    assert (found.status["status"], found.status["reason"]) == ("invalid", "Invalid")
    refused = DrayJob({**drayjob(finalized=False).body, "status": found.status})
    assert next_of(refused) is None


def test_a_job_whose_record_is_gone_is_not_run_again() -> None:
    running = told(drayjob(), record(phase=Phase.RUNNING, started_at=NOW))
    found = next_of(running)
    assert isinstance(found, Publish)
    assert (found.status["status"], found.status["reason"]) == ("error", "RecordGone")
    assert next_of(DrayJob({**running.body, "status": found.status})) is None


def test_an_object_outlives_its_end_as_long_as_it_says() -> None:
    job = record(phase=Phase.COMPLETE, finished_at=NOW)
    kept = told(drayjob(ttlSecondsAfterFinished=10), job)
    assert kept.job_spec.ttlSecondsAfterFinished is None  # else its record would go at a time that the object no longer says
    assert next_of(kept, job, now=NOW + 9 * SECOND) is None
    assert next_of(kept, job, now=NOW + 10 * SECOND) == Delete()


def test_a_deleted_object_waits_for_its_job_to_be_cancelled_and_removed() -> None:
    deleted = drayjob(deleted="2027-01-15T08:00:00Z")
    assert next_of(deleted, record(phase=Phase.RUNNING)) == Cancel()
    assert next_of(deleted, record(phase=Phase.RUNNING, told=Told(cancelled=1))) is None
    assert next_of(deleted, record(phase=Phase.ERROR, told=Told(cancelled=1))) == Doom()
    assert next_of(deleted, record(phase=Phase.ERROR, told=Told(doomed=True))) is None
    assert next_of(deleted) == Release()


def test_a_deletion_ends_in_time_whatever_the_job_does() -> None:
    deleted = drayjob(deleted="2027-01-15T07:59:30Z")
    assert next_of(deleted, record(phase=Phase.RUNNING, told=Told(cancelled=1))) == Doom()
    assert next_of(deleted, record(phase=Phase.RUNNING, told=Told(cancelled=1, doomed=True))) == Release()


def test_a_mirror_is_only_shown() -> None:
    mirror = drayjob(mirrorOf="0E4BD3F1-6D5C-4F7E-9A43-3A4C5E6F7A8C", finalized=False)
    assert mirror.job_id == "0E4BD3F1-6D5C-4F7E-9A43-3A4C5E6F7A8C"
    assert isinstance(next_of(mirror, record(phase=Phase.RUNNING)), Publish)
    assert next_of(mirror) == Delete()


# --- what its status says


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {condition["type"]: (condition["status"], condition["reason"]) for condition in status["conditions"]}


def test_the_status_of_a_failed_job() -> None:
    steps = (StepState(phase=Phase.COMPLETE, exit_code=0, started_at=NOW, finished_at=NOW), StepState(phase=Phase.ERROR, exit_code=3, started_at=NOW))
    job = record(phase=Phase.ERROR, steps=steps, started_at=NOW - 90 * SECOND, finished_at=NOW, reason=Reason.EXIT_CODE, message="step 2", failed=1)
    status = of_record(drayjob(), replace(job, stderr=("no such word",)), NOW)
    assert (status["status"], status["progress"], status["reason"], status["duration"]) == ("error", "1/2", "ExitCode", "1m30s")
    assert [step.get("exitCode") for step in status["steps"]] == [0, 3]
    assert status["stderr"] == ["no such word"]
    assert conditions(status) == {
        "Accepted": ("True", "Accepted"),
        "Running": ("False", "Ended"),
        "Succeeded": ("False", "ExitCode"),
        "Failed": ("True", "ExitCode"),
    }


def test_values_of_variables_are_not_in_the_status() -> None:
    spec = drayjob(environment=[{"variable": "PASSWORD", "value": "open-sesame"}]).job_spec
    job = replace(new_job(UID.upper(), spec, NOW), phase=Phase.ERROR, reason=Reason.EXIT_CODE, failed=0, stderr=("PASSWORD=open-sesame is wrong",))
    assert of_record(drayjob(), job, NOW)["stderr"] == ["PASSWORD=*** is wrong"]


def test_a_transition_is_told_once_and_keeps_its_time() -> None:
    waiting = of_record(drayjob(), record(), NOW)
    running = of_record(DrayJob({**drayjob().body, "status": waiting}), record(phase=Phase.RUNNING), NOW + 5 * SECOND)
    assert [condition.type for condition in transitions({}, waiting)] == ["Accepted"]
    assert [condition.type for condition in transitions(waiting, running)] == ["Running"]
    times = {condition["type"]: condition["lastTransitionTime"] for condition in running["conditions"]}
    assert times == {"Accepted": "2027-01-15T08:00:00Z", "Running": "2027-01-15T08:00:05Z"}


@pytest.mark.parametrize("reason", list(Reason))
def test_reasons_are_in_kubernetes_form(reason: Reason) -> None:
    job = record(phase=Phase.ERROR, reason=reason, failed=0)
    found = of_record(drayjob(), job, NOW)["reason"]
    assert found[0].isupper()
    assert found.isalnum()


# --- the documents


def test_the_table_of_metrics_is_the_codes() -> None:
    text = (CRDS.parent / "docs" / "kubernetes.md").read_text()
    table = re.search(r"<!-- printed from dray.crd.measures.*?-->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert table is not None
    families = [family for metric in vars(measures).values() if isinstance(metric, MetricWrapperBase) for family in metric.describe()]
    names = [f"{family.name}_total" if family.type == "counter" else family.name for family in families]
    assert re.findall(r"^\| `(\w+)` \| (\w+) \|.*\| (.*?) \|$", table[1], re.MULTILINE) == [
        (name, family.type, family.documentation) for name, family in zip(names, families, strict=True)
    ]
