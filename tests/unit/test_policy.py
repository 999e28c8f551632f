"""What the operator's settings let a job use, the secrets it has, and what a step finds in its environment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dray.backends.fake import FakeBackend, World
from dray.environment import launching
from dray.errors import Invalid
from dray.fields import Limits
from dray.policy import limits, refusals
from dray.preflight import preflight
from dray.reason import Reason
from dray.record import Job, StepState, new_job
from dray.secrets import NoSecret, Secrets
from dray.settings import Runs, Settings
from dray.spec import parse


def step(**fields: Any) -> dict[str, Any]:
    return {"source": "ubuntu", **fields}


def refused(settings: Settings, *steps: dict[str, Any]) -> list[tuple[str, Reason]]:
    return [(field, fault.reason) for field, fault in refusals(parse({"steps": steps}), settings)]


@pytest.mark.parametrize(
    ("source", "pattern", "allowed"),
    [
        ("ubuntu", "ubuntu", True),
        ("ubuntu", "docker.io/library/*", True),
        ("ubuntu", "docker.io/library/ubuntu:latest", True),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.*", True),
        ("team/app", "docker.io/team/*", True),
        ("team/app", "docker.io/library/*", False),
        ("localhost/app", "docker.io/*", False),
        ("registry.example:5000/a", "registry.example:5000/*", True),
        ("evil.example/registry.example/a", "registry.example/*", False),
        ("Registry.Example/a", "registry.example/*", False),
    ],
)
def test_an_image_is_allowed_by_a_pattern_for_it_or_for_its_full_name(source: str, pattern: str, allowed: bool) -> None:
    found = refused(Settings(images=("nothing", pattern)), step(source=source))
    assert found == ([] if allowed else [("steps[0].source", Reason.IMAGE_NOT_ALLOWED)])


@pytest.mark.parametrize(("path", "allowed"), [("/srv", True), ("/srv/a", False), ("/srvx", False), ("/", False)])
def test_a_path_of_the_host_is_allowed_itself_and_nothing_below_it(path: str, allowed: bool) -> None:
    found = refused(Settings(host_paths=("/srv",)), step(), step(mounts=[{"volume": "v", "path": "/v"}, {"hostPath": path, "path": "/x"}]))
    assert found == ([] if allowed else [("steps[1].mounts[1].hostPath", Reason.MOUNT_NOT_ALLOWED)])


def test_what_a_backend_cannot_do_is_refused_where_the_job_would_run_on_it() -> None:
    pids, pod, alone = {"steps": [step(), step(resources={"pids": 3})]}, {"steps": [step()], "kubernetes": {}}, {"steps": [step()], "network": "none"}
    on = {backend: Settings(backend=backend) for backend in Runs}

    def found(spec: dict[str, Any], backend: Runs) -> list[tuple[str, Reason]]:
        return [(field, fault.reason) for field, fault in refusals(parse(spec), on[backend])]

    assert found(pids, Runs.KUBERNETES) == [("steps[1].resources.pids", Reason.NOT_SUPPORTED)]
    assert found(alone, Runs.KUBERNETES) == [("network", Reason.NOT_SUPPORTED)]
    assert found(pod, Runs.DOCKER) == [("kubernetes", Reason.NOT_SUPPORTED)]
    assert found(pids, Runs.DOCKER) == found(alone, Runs.DOCKER) == found(pod, Runs.KUBERNETES) == []
    for spec, backend in ((pids, "docker"), (alone, "docker"), (pod, "kubernetes")):
        assert [found({**spec, "backend": backend}, other) for other in Runs] == [[], []]


def test_what_another_backends_settings_say_is_not_for_this_one_to_judge() -> None:
    away = {"steps": [step()], "kubernetes": {"namespace": "team"}, "backend": "kubernetes"}
    assert list(refusals(parse(away), Settings())) == []
    (refusal,) = refusals(parse(away), Settings(backend=Runs.KUBERNETES))
    assert refusal[0] == "kubernetes.namespace"


def test_a_step_gets_what_it_asks_for_or_the_default_and_never_more_than_the_ceiling() -> None:
    settings = Settings(limits=Limits(cpu=500, pids=900), limits_max=Limits(memory=64 * 2**20, pids=100))
    spec = parse({"steps": [step(), step(resources={"cpu": 2, "memory": "32Mi"}), step(resources={"memory": "65Mi", "pids": 101})]})
    assert limits(spec, 0, settings) == Limits(500, 64 * 2**20, 100)
    assert limits(spec, 1, settings) == Limits(2000, 32 * 2**20, 100)
    fields = [field for field, fault in refusals(spec, settings) if fault.reason is Reason.RESOURCES_NOT_ALLOWED]
    assert fields == ["steps[2].resources.memory", "steps[2].resources.pids"]


def test_a_secret_is_a_file_or_a_variable_of_the_operators(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one\ntwo\n")
    secrets = Secrets(Settings(secrets_dir=tmp_path), {"DRAY_SECRET_MY_KEY_1": "three", "DRAY_SECRET_FILE": "not this"})
    assert (secrets.value("file"), secrets.value("my-key.1")) == ("one\ntwo", "three")
    with pytest.raises(NoSecret, match="DRAY_SECRET_OTHER"):
        secrets.value("other")


@pytest.mark.parametrize("content", [b"a\0b", b"\xff", b"x" * 200_000])
def test_what_can_be_no_variable_is_refused_without_being_shown(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(NoSecret) as caught:
        Secrets(Settings(secrets_dir=tmp_path), {}).value("bad")
    assert content.decode(errors="replace")[:8] not in str(caught.value)


def job_with(*steps: dict[str, Any], **changes: Any) -> Job:
    job = new_job("J", parse({"name": "n\0ame", "steps": steps, "environment": [{"variable": "A", "value": "job's"}]}), 1)
    return replace(job, **changes)


def given(job: Job, number: int) -> Any:
    return asyncio.run(launching(job, number, Secrets(Settings(), {"DRAY_SECRET_PW": "open sesame"}), True))


def test_a_step_knows_where_it_stands_whatever_its_client_says() -> None:
    wanted = [{"variable": "PW", "secret": "PW"}, {"variable": "DRAY_ATTEMPT", "value": "7"}, {"variable": "A", "value": "step's"}]
    job = job_with(step(), step(name="second", environment=wanted, retries=3)).with_step(1, StepState(attempt=2))
    found = given(job, 1)
    place = {"DRAY_JOB_ID": "J", "DRAY_JOB_NAME": "name", "DRAY_STEP_INDEX": "2", "DRAY_STEP_NAME": "second", "DRAY_ATTEMPT": "2"}
    assert found.environment == {"A": "step's", "PW": "open sesame", **place}
    assert (found.masked, found.retries) == (("PW",), 3)


def test_a_step_marked_always_is_told_the_outcome() -> None:
    steps = step(), step(always=True)
    well = given(job_with(*steps), 1).environment
    failed = given(job_with(*steps, reason=Reason.EXIT_CODE, failed=0).with_step(0, StepState(exit_code=3)), 1).environment
    names = ["DRAY_STATUS", "DRAY_REASON", "DRAY_FAILED_STEP", "DRAY_EXIT_CODE"]
    assert [well[name] for name in names] == ["complete", "", "", ""]
    assert [failed[name] for name in names] == ["error", "exit_code", "1", "3"]


def checked(spec: dict[str, Any], **settings: Any) -> tuple[str, ...]:
    return asyncio.run(preflight(parse(spec), FakeBackend(World({"ubuntu": lambda _: (b"", 0)})), Settings(**settings)))


def test_a_preflight_names_every_field_at_fault() -> None:
    variables = [{"variable": "A", "secret": "nowhere"}]
    with pytest.raises(Invalid) as caught:
        checked({"environment": variables, "steps": [step(), step(source="other", environment=variables)]}, images=("ubuntu",))
    assert [error.field for error in caught.value.errors] == ["steps[1].source", "environment[0].secret", "steps[1].environment[0].secret"]
    with pytest.raises(Invalid, match=r"steps\[1\].source"):
        checked({"steps": [step(), step(source="other")]})
    assert checked({"steps": [step()]}) == ("ubuntu",)
