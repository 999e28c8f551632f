"""What a client may post: every limit at its edge, the words of each refusal, and what is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from dray import fields
from dray.errors import Invalid
from dray.settings import Runs
from dray.spec import JobSpec, parse

DIGEST = "@sha256:" + "0123456789abcdef" * 4


def _job(**step: object) -> dict[str, Any]:
    return {"steps": [{"source": "a", **step}]}


def _refusal(given: object) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        parse(given)
    return [(error.field, error.message) for error in caught.value.errors]


@pytest.mark.parametrize(
    "source",
    [
        "a",
        "ubuntu:22.04",
        "centurylink/cluster-deploy:aws.fleet",
        "a__b/c-d.e",
        "a--b",
        "localhost/a",
        "Registry.Example:5000/team/app:v1_2.3-x",
        "[::1]:5000/a",
        f"a{DIGEST}",
        f"127.0.0.1:5000/a/b:tag{DIGEST}",
        "a:" + "t" * 128,
    ],
)
def test_a_source_is_any_image_reference(source: str) -> None:
    assert parse(_job(source=source)).steps[0].source == source


@pytest.mark.parametrize(
    "source",
    [
        "A",
        "a/B",
        " a",
        "a ",
        "a\n",
        "a b",
        "a:",
        ":a",
        "a@",
        "a@sha256:12",
        "a//b",
        "/a",
        "a/",
        "a:t:u",
        "a_-b",
        "-a",
        "a...b",
        "a:" + "t" * 129,
        "http://a",
        "á",
        "a\0",
    ],
)
def test_a_source_is_nothing_else(source: str) -> None:
    [(field, message)] = _refusal(_job(source=source))
    assert field == "steps[0].source"
    assert message.startswith("must be an image reference such as 'ubuntu'")


@pytest.mark.parametrize("output", ["stdout", "stderr", "/a", "/out/put.txt", "/a/.b", "/a/..b", "/procs", "/.drayer", "/" + "ä" * 127, "/a b", "/a\nb"])
def test_an_output_is_a_stream_or_a_file(output: str) -> None:
    assert parse(_job(output=output)).steps[0].output == output


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("stdin", "must be 'stdout', 'stderr' or an absolute path"),
        (" /a", "must be 'stdout', 'stderr' or an absolute path"),
        ("/", "must be the path of a file, without '.', '..' or empty parts"),
        ("//a", "must be the path of a file, without '.', '..' or empty parts"),
        ("/a/", "must be the path of a file, without '.', '..' or empty parts"),
        ("/a/./b", "must be the path of a file, without '.', '..' or empty parts"),
        ("/..", "must be the path of a file, without '.', '..' or empty parts"),
        ("/" + "ä" * 128, "must be at most 4095 bytes, each part at most 255"),
        ("/abc" * 1024, "must be at most 4095 bytes, each part at most 255"),
        ("/proc", "must not lie in /proc, /sys, /.dray, /.dray-bin"),
        ("/sys/a", "must not lie in /proc, /sys, /.dray, /.dray-bin"),
        ("/.dray/0.1.out", "must not lie in /proc, /sys, /.dray, /.dray-bin"),
        ("/.dray-bin/x", "must not lie in /proc, /sys, /.dray, /.dray-bin"),
        ("/a\0", "must not contain a NUL character"),
    ],
)
def test_an_output_is_nothing_else(output: str, message: str) -> None:
    assert _refusal(_job(output=output)) == [("steps[0].output", message)]


def _environment(size: int) -> dict[str, object]:
    """A job with one variable of that many bytes, in characters of two."""
    return _job(environment=[{"variable": "AB", "value": "ä" * ((size - 3) // 2) + "x" * ((size - 3) % 2)}])


AT_THE_LIMIT = {
    "steps": ({"steps": [{"source": "a"}] * fields.MAX_STEPS}, {"steps": [{"source": "a"}] * (fields.MAX_STEPS + 1)}, "must have at most 100 entries"),
    "name": ({**_job(), "name": "ä" * fields.MAX_NAME}, {**_job(), "name": "ä" * (fields.MAX_NAME + 1)}, "must be at most 1024 characters"),
    "steps[0].name": (_job(name="ä" * fields.MAX_NAME), _job(name="ä" * (fields.MAX_NAME + 1)), "must be at most 1024 characters"),
    "steps[0].source": (_job(source="a" * fields.MAX_SOURCE), _job(source="a" * (fields.MAX_SOURCE + 1)), "must be at most 512 characters"),
    "steps[0].environment": (
        _job(environment=[{"variable": "A", "value": ""}] * fields.MAX_ENVIRONMENT),
        _job(environment=[{"variable": "A", "value": ""}] * (fields.MAX_ENVIRONMENT + 1)),
        "must have at most 1000 entries",
    ),
    "steps[0].environment[0]": (
        _environment(fields.MAX_VARIABLE),
        _environment(fields.MAX_VARIABLE + 1),
        "variable and value together must be at most 131000 bytes",
    ),
    "steps[0].output": (_job(output="/abc" * 1023 + "/ab"), _job(output="/abc" * 1023 + "/abc"), "must be at most 4095 bytes, each part at most 255"),
    "steps[0].beginDelimiter": (
        _job(beginDelimiter="ä" * (fields.MAX_DELIMITER // 2)),
        _job(beginDelimiter="ä" * (fields.MAX_DELIMITER // 2) + "x"),
        "must be at most 4096 bytes",
    ),
}


@pytest.mark.parametrize("field", AT_THE_LIMIT)
def test_a_limit_can_be_reached_but_not_passed(field: str) -> None:
    within, over, message = AT_THE_LIMIT[field]
    parse(within)
    assert _refusal(over) == [(field, message)]


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        (None, ("", "must be an object")),
        ([], ("", "must be an object")),
        ("x", ("", "must be an object")),
        ({}, ("steps", "is required")),
        ({"steps": None}, ("steps", "is required")),
        ({"steps": []}, ("steps", "must have at least 1 entry")),
        ({"steps": {}}, ("steps", "must be an array")),
        ({"steps": ["a"]}, ("steps[0]", "must be an object")),
        ({"steps": [{}]}, ("steps[0].source", "is required")),
        (_job(source=""), ("steps[0].source", "must not be empty")),
        (_job(source=["a"]), ("steps[0].source", "must be a string")),
        (_job(refresh="yes"), ("steps[0].refresh", "must be true or false")),
        (_job(beginDelimiter="a\nb"), ("steps[0].beginDelimiter", "must be one line")),
        (_job(environment=[{"variable": "A=", "value": ""}]), ("steps[0].environment[0].variable", "must not contain '='")),
        ({**_job(), "environment": [{"value": ""}]}, ("environment[0].variable", "is required")),
        ({**_job(), "environment": [{"variable": "A"}]}, ("environment[0]", "must have either a value or the name of a secret")),
    ],
)
def test_a_refusal_says_what_would_be_right(given: object, refusal: tuple[str, str]) -> None:
    assert _refusal(given) == [refusal]


def test_every_fault_is_named_and_no_other() -> None:
    given = {"name": 1, "steps": [{"source": "A"}, {"output": "x"}], "environment": [{}]}
    fields = [field for field, _ in _refusal(given)]
    assert fields == ["name", "steps[0].source", "steps[1].source", "steps[1].output", "environment[0].variable"]


def test_no_refusal_repeats_a_value() -> None:
    for environment in (
        [{"variable": "A", "value": "hunter2\0"}],
        [{"variable": "hunter2=", "value": ""}],
        ["hunter2"],
        [{"variable": "A", "value": {"x": "hunter2"}}],
    ):
        with pytest.raises(Invalid) as caught:
            parse(_job(environment=environment))
        assert "hunter2" not in str(caught.value)


def test_null_and_unknown_fields_count_as_absent() -> None:
    given = {**_job(name=None, environment=None, output=None, refresh=None, entrypoint=["x"]), "name": None, "x": 1}
    assert parse(given) == parse(_job())


def test_an_empty_output_is_stdout() -> None:
    assert parse(_job(output="")) == parse(_job())
    assert parse(_job()).steps[0].output == "stdout"


def test_a_steps_value_wins_over_the_jobs_and_the_later_one_of_a_list() -> None:
    def var(name: str, value: str) -> dict[str, str]:
        return {"variable": name, "value": value}

    job = parse({"environment": [var("A", "1"), var("B", "2"), var("B", "3")], "steps": [{"source": "a", "environment": [var("A", "4")]}, {"source": "a"}]})
    values = [{name: variable.value for name, variable in job.environment_of(step).items()} for step in (0, 1)]
    assert values == [{"A": "4", "B": "3"}, {"A": "1", "B": "3"}]


@pytest.mark.parametrize(
    ("fields", "delimiters"),
    [
        ({"beginDelimiter": "b", "endDelimiter": "e"}, ("b", "e")),
        ({"beginDelimiter": "b", "endDelimiter": "e", "output": "stderr"}, ("b", "e")),
        ({"beginDelimiter": "b"}, None),
        ({"endDelimiter": "e"}, None),
        ({"beginDelimiter": "b", "endDelimiter": "e", "output": "/a"}, None),
        ({}, None),
    ],
)
def test_delimiters_count_in_pairs_and_for_streams(fields: dict[str, str], delimiters: tuple[str, str] | None) -> None:
    assert parse(_job(**fields)).steps[0].delimiters == delimiters


def test_a_spec_survives_its_own_json() -> None:
    job = parse({**_job(output="stdout", environment=[{"variable": "A", "value": "\u2028\U0001f600\x7f"}]), "name": "n"})
    again = JobSpec.model_validate_json(job.model_dump_json(exclude_unset=True))
    assert again == job
    assert again.steps[0].model_fields_set == job.steps[0].model_fields_set


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        (_job(command=["a", 1]), "steps[0].command[1]", "must be a string"),
        (_job(command=[""]), "steps[0]", "must begin with the name of a program"),
        (_job(args=["a\0"]), "steps[0].args[0]", "NUL"),
        (_job(workdir="x"), "steps[0].workdir", "must be an absolute path"),
        (_job(timeout=0), "steps[0].timeout", "must be more than 0"),
        (_job(timeout="5"), "steps[0].timeout", "must be a number"),
        (_job(timeout=1e9), "steps[0].timeout", "must be at most 2592000"),
        (_job(retries=-1), "steps[0].retries", "must be at least 0"),
        (_job(retries=1.5), "steps[0].retries", "must be a whole number"),
        (_job(retries=11), "steps[0].retries", "must be at most 10"),
        (_job(resources={"cpu": "fast"}), "steps[0].resources.cpu", "must be a number of cores"),
        (_job(resources={"cpu": True}), "steps[0].resources.cpu", "must be a number or a string"),
        (_job(resources={"cpu": 0}), "steps[0].resources.cpu", "must be from 1m"),
        (_job(resources={"memory": "1Mi"}), "steps[0].resources.memory", "must be from 6Mi"),
        (_job(resources={"memory": 7.5e6}), "steps[0].resources.memory", "must be a whole number or a string"),
        (_job(resources={"pids": 0}), "steps[0].resources.pids", "must be at least 1"),
        (_job(mounts=[{"path": "/a"}]), "steps[0].mounts[0]", "either a volume or a hostPath"),
        (_job(mounts=[{"volume": "a", "hostPath": "/b", "path": "/a"}]), "steps[0].mounts[0]", "either a volume or a hostPath"),
        (_job(mounts=[{"volume": "../x", "path": "/a"}]), "steps[0].mounts[0].volume", "the first a letter or digit"),
        (_job(mounts=[{"volume": "a", "path": "/"}]), "steps[0].mounts[0].path", "must not be '/'"),
        (_job(mounts=[{"volume": "a", "path": "/.dray/x"}]), "steps[0].mounts[0].path", "must not lie in"),
        (_job(mounts=[{"volume": "a", "path": "/a"}] * 2), "steps[0]", "different paths"),
        (_job(environment=[{"variable": "A", "value": "x", "secret": "y"}]), "steps[0].environment[0]", "must have either a value or the name of a secret"),
        (_job(environment=[{"variable": "A", "secret": "a/b"}]), "steps[0].environment[0].secret", "the first a letter or digit"),
        (_job(always=True), "", "steps must begin with one that is not marked always"),
        ({"steps": [{"source": "a"}, {"source": "a", "always": True}, {"source": "a"}]}, "", "must come after all others"),
        ({"steps": [{"source": "a"}, {"source": "a", "always": True, "output": "stderr"}]}, "steps[1]", "an always step passes nothing on"),
        ({**_job(), "timeout": -1}, "timeout", "must be more than 0"),
        ({**_job(), "labels": {"a b": "c"}}, "labels.a b", "must be named as Kubernetes labels are"),
        ({**_job(), "labels": {"a": "b c"}}, "labels.a", "beginning and ending with a letter or digit"),
        ({**_job(), "labels": {"a": 1}}, "labels.a", "must be a string"),
        ({**_job(), "network": "host"}, "network", "must not be 'host'"),
        ({**_job(), "network": "container:x"}, "network", "the first a letter or digit"),
        ({**_job(), "backend": "podman"}, "backend", "must be 'docker' or 'kubernetes'"),
        ({**_job(), "backend": ""}, "backend", "must be 'docker' or 'kubernetes'"),
        ({**_job(), "backend": "docker", "kubernetes": {}}, "kubernetes", "is for jobs on Kubernetes"),
        ({**_job(), "backend": "kubernetes", "network": "none"}, "network", "only bridge"),
        ({**_job(resources={"pids": 3}), "backend": "kubernetes"}, "steps[0].resources.pids", "no limit of processes"),
        ({**_job(), "ttlSecondsAfterFinished": -1}, "ttlSecondsAfterFinished", "must be at least 0"),
        ({**_job(), "ttlSecondsAfterFinished": 1.5}, "ttlSecondsAfterFinished", "must be a whole number"),
        ({**_job(), "ttlSecondsAfterFinished": 2**31}, "ttlSecondsAfterFinished", "must be at most 2147483647"),
    ],
)
def test_a_field_of_ours_that_cannot_be_is_named(given: dict[str, Any], field: str, says: str) -> None:
    [(where, message)] = _refusal(given)
    assert where == field
    assert says in message


@pytest.mark.parametrize("backend", list(Runs))
def test_a_job_may_name_any_backend_that_an_operator_may_have_or_none(backend: Runs) -> None:
    assert parse({**_job(), "backend": str(backend)}).backend == backend
    assert parse({**_job(), "backend": None}).backend is parse(_job()).backend is None


def test_what_runs_is_the_images_or_the_steps_words() -> None:
    entrypoint, default = ("entry",), ("default",)
    assert parse(_job()).steps[0].words(entrypoint, default) == ("entry", "default")
    assert parse(_job(args=["mine"])).steps[0].words(entrypoint, default) == ("entry", "mine")
    assert parse(_job(command=["own"])).steps[0].words(entrypoint, default) == ("own",)
    assert parse(_job(command=["own"], args=["mine"])).steps[0].words(entrypoint, default) == ("own", "mine")


@pytest.mark.parametrize(("cpu", "millis"), [(1, 1000), (0.5, 500), ("250m", 250), ("2", 2000), ("0.001", 1)])
def test_cores_and_bytes_are_written_as_in_kubernetes(cpu: Any, millis: int) -> None:
    assert parse(_job(resources={"cpu": cpu, "memory": "64Mi", "pids": 3})).steps[0].resources.limits == fields.Limits(millis, 64 * 2**20, 3)
    assert fields.octets("1G") == fields.octets(10**9) == 10**9
