"""What charts/dray renders: as its golden files say, as a real API server takes it, and no more than what must talk can."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import reference
from kit import chart, golden
from kit.chart import CHART, found, helm, rendered
from kit.kubernetes import Refused, kubectl, require_cluster

ROOT = Path(__file__).parents[2]
GROUPS_THAT_MAY_BE_ABSENT = {"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"}

pytestmark = pytest.mark.ours


@pytest.fixture(scope="module", autouse=True)
def with_helm() -> None:
    chart.require_helm()


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """One of the tests' own, with what objects of the chart refer to."""
    require_cluster()
    with chart.namespace() as name:
        for account in ("dray-operator", "dray-test-drayjob", "engine-operator", "engine-test-drayjob"):
            kubectl("-n", name, "create", "serviceaccount", account)
        yield name


# --- the chart itself


def test_helm_finds_nothing_to_complain_of() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_schema_and_readme_are_made_from_the_values() -> None:
    schema, readme = reference.written((CHART / "values.yaml").read_text(), (CHART / "README.md").read_text())
    assert (CHART / "values.schema.json").read_text() == schema
    assert (CHART / "README.md").read_text() == readme


def test_every_value_is_described() -> None:
    def undescribed(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, below in schema.get("properties", {}).items():
            if not below.get("description"):
                yield f"{path}{name}"
            yield from undescribed(below, f"{path}{name}.")

    assert list(undescribed(json.loads((CHART / "values.schema.json").read_text()))) == []


@pytest.mark.parametrize(
    "values",
    [
        {"backend": "podman"},
        {"replicas": 3},
        {"api": {"replicas": "two"}},
        {"settings": {"PATH": "/bin"}},
        {"settings": {"DRAY_BACKEND": "docker"}},
        {"token": {"value": "short"}},
        {"ingress": {"enabled": True}},
        {"httpRoute": {"enabled": True, "hostnames": ["dray.example"]}},
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        rendered(values)


def test_the_resource_definition_is_that_of_crds() -> None:
    assert (CHART / "files" / "drayjob.yaml").read_bytes() == (ROOT / "crds" / "drayjob.yaml").read_bytes()
    ours = found(rendered({}), "CustomResourceDefinition", "drayjobs.dray.io")
    assert ours["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert ours["metadata"].pop("labels")
    assert ours == yaml.safe_load((ROOT / "crds" / "drayjob.yaml").read_text())


def test_the_operator_may_do_what_crds_rbac_says() -> None:
    """But for its Lease, which the chart makes, so that it may use this one alone."""
    documents = [each for name in ("rbac.yaml", "rbac-jobs.yaml") for each in yaml.safe_load_all((ROOT / "crds" / name).read_text())]
    ours = rendered({"valuesFrom": ["team"], "mirrorJobs": "shown"})
    for name, theirs in {"drayjobs": "dray-operator", "jobs": "dray-jobs", "cluster": "dray-cluster"}.items():
        assert found(ours, "ClusterRole", f"jobs-dray-{name}")["rules"] == found(documents, "ClusterRole", theirs)["rules"]
    for name in ("values", "mirror"):
        assert found(ours, "Role", f"jobs-dray-{name}")["rules"] == found(documents, "ClusterRole", f"dray-{name}")["rules"]


def test_with_a_list_of_namespaces_the_operator_may_do_nothing_elsewhere() -> None:
    ours = rendered({"namespaces": ["team-a", "team-b"], "valuesFrom": ["team-a"]})
    in_cluster = [thing["metadata"]["name"] for thing in ours if thing["kind"] == "ClusterRole"]
    assert in_cluster == ["jobs-dray-cluster"]  # kube-system may be read, whose uid names the cluster
    roles = [thing["metadata"] for thing in ours if thing["kind"] == "Role"]
    assert {role["namespace"] for role in roles if role["name"] == "jobs-dray-jobs"} == {"jobs-jobs", "team-a", "team-b"}


# --- what it renders


@pytest.mark.parametrize("case", golden.CASES)
def test_it_renders_what_the_golden_file_says(case: str) -> None:
    assert golden.golden(case) == golden.file(case).read_text(), "`make chart` writes the files anew"


@pytest.mark.parametrize("case", golden.CASES)
def test_the_api_server_takes_every_object(case: str, namespace: str) -> None:
    things = [thing for thing in golden.objects(case) if thing["apiVersion"] not in GROUPS_THAT_MAY_BE_ABSENT]
    for thing in things:
        if thing["kind"] not in ("ClusterRole", "ClusterRoleBinding", "Namespace"):
            thing["metadata"]["namespace"] = namespace
    sent = yaml.safe_dump_all(things)
    told = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", sent=sent)
    assert told.count("(server dry run)") == len(things)


@pytest.mark.parametrize("case", [case for case in golden.CASES if case != "docker"])
def test_its_pods_are_restricted(case: str, namespace: str) -> None:
    """As the API server itself judges, by the Pod Security Standard `restricted`."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    try:
        pods = list(_pods(golden.objects(case)))
        for number, pod in enumerate(pods):
            pod["metadata"] |= {"name": f"tried-{number}", "namespace": namespace}
        told = kubectl("apply", "--dry-run=server", "-f", "-", sent=yaml.safe_dump_all(pods))
        assert told.count("(server dry run)") == len(pods) >= 4
    finally:
        kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce-")


def _pods(things: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those that the objects are, or make."""
    for thing in things:
        if thing["kind"] == "Pod":
            yield thing
        elif "template" in thing.get("spec", {}):
            pod = {"apiVersion": "v1", "kind": "Pod", **thing["spec"]["template"]}
            claims = [claim["metadata"]["name"] for claim in thing["spec"].get("volumeClaimTemplates", [])]
            pod["spec"]["volumes"] += [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
            yield pod


def test_a_token_is_made_where_none_is_given() -> None:
    tokens = {found(rendered({}), "Secret", "dray-token")["stringData"]["token"] for _ in range(2)}
    assert [len(token) for token in tokens] == [32, 32]


def test_the_api_answers_to_all_its_names() -> None:
    deployment = found(golden.objects("open"), "Deployment", "dray-api")
    names = next(variable["value"] for variable in deployment["spec"]["template"]["spec"]["containers"][0]["env"] if variable["name"] == "DRAY_HOSTS")
    assert names == "dray-api,dray-api.jobs,dray-api.jobs.svc,dray-api.jobs.svc.cluster.local,dray.example,jobs.example,dray.internal"


def test_the_notes_warn_of_what_is_dangerous(namespace: str) -> None:
    values = {"backend": "docker", "ingress": {"enabled": True, "host": "a.example"}, "crds": {"install": False}}
    told = helm("install", "noted", str(CHART), "--namespace", namespace, "--dry-run=server", values=values)
    notes = told.partition("NOTES:")[2]
    assert [word in notes for word in ("engine's socket", "outputs over 64 KiB", "token in clear")] == [True] * 3
    assert notes.count("\n  ") == 3  # the next three commands


# --- who may talk to whom: NetworkPolicies are judged here as the API's reference says, since not every cluster enforces them

API, OPERATOR, REDIS, TEST = "api", "operator", "redis", "test"
STRANGER = "stranger"  # any pod in another namespace


@pytest.mark.parametrize(
    ("source", "target", "port", "may"),
    [
        (API, REDIS, "redis", True),
        (OPERATOR, REDIS, "redis", True),
        (TEST, REDIS, "redis", False),
        (STRANGER, REDIS, "redis", False),
        (STRANGER, API, "http", True),
        (STRANGER, OPERATOR, "http", True),
        (REDIS, API, "http", False),
        (REDIS, OPERATOR, "http", False),
        (API, OPERATOR, "http", False),
        (OPERATOR, API, "http", True),
        (API, STRANGER, "https", False),
        (REDIS, STRANGER, "https", False),
        (OPERATOR, STRANGER, "https", True),
    ],
)
def test_only_what_must_talk_can(source: str, target: str, port: str, may: bool) -> None:
    policies = _policies("default")
    assert (_lets(policies, "egress", source, target, port) and _lets(policies, "ingress", target, source, port)) is may


def test_the_api_can_be_kept_to_some_clients() -> None:
    policies = _policies("open")
    assert not _lets(policies, "ingress", API, STRANGER, "http")
    assert _lets(policies, "ingress", API, TEST, "http")


def _policies(case: str) -> list[dict[str, Any]]:
    """Those of the release's own namespace."""
    return [thing["spec"] for thing in golden.objects(case) if thing["kind"] == "NetworkPolicy" and "namespace" not in thing["metadata"]]


def _lets(policies: list[dict[str, Any]], way: str, of: str, peer: str, port: str) -> bool:
    """Whether the policies that select `of`, if there are any, have a rule for this peer and port."""
    mine = [policy for policy in policies if way.capitalize() in policy["policyTypes"] and _selects(policy["podSelector"], of)]
    rules = [rule for policy in mine for rule in policy.get(way, [])]
    return not mine or any(_names(rule, {"ingress": "from", "egress": "to"}[way], peer) and _opens(rule, port) for rule in rules)


def _names(rule: dict[str, Any], field: str, peer: str) -> bool:
    return field not in rule or any("podSelector" in each and "namespaceSelector" not in each and _selects(each["podSelector"], peer) for each in rule[field])


def _opens(rule: dict[str, Any], port: str) -> bool:
    return "ports" not in rule or port in [each["port"] for each in rule["ports"]]


def _selects(selector: dict[str, Any], part: str) -> bool:
    """A stranger has other labels, and is in another namespace, where a podSelector alone selects nobody."""
    labels = {} if part == STRANGER else {"app.kubernetes.io/name": "dray", "app.kubernetes.io/instance": "dray", "app.kubernetes.io/component": part}
    equal = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return part != STRANGER and equal and all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))
