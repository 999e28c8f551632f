"""The HTTP contract, on any implementation of it.

    DRAY_URL=http://host:3000 [DRAY_TOKEN=…] [DRAY_TEST_IMAGE=…] pytest tests/contract/test_http.py [-m "not ours"]

judges the one at DRAY_URL; without it, our own API, and `dray serve` where steps must run. `ours` marks what the
original does not do. DRAY_TEST_IMAGE names an image whose command runs the shell script in the variable SCRIPT;
without it one is made on the local engine.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from kit.clustered import Clustered
from kit.serving import Served

ours = pytest.mark.ours
ID = re.compile(r"[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}")
UNKNOWN = "51E0E756-A6B4-9CC7-67BD-364970C2268C"
GO_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{0,8}[1-9])? \+0000 UTC")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
DEMO = {
    "name": "Demo Job",
    "steps": [
        {"name": "random-word", "source": "dray.invalid/randword", "environment": [{"variable": "WORD_COUNT", "value": "10"}]},
        {"name": "uppercase", "source": "dray.invalid/upper"},
        {"name": "reverse", "source": "dray.invalid/reverse"},
    ],
}
SMALL = {"steps": [{"source": "dray.invalid/none"}]}


@pytest.fixture(scope="module")
def http(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """The implementation under test. Its jobs need not run."""
    url = os.environ.get("DRAY_URL")
    if url is None:
        yield request.getfixturevalue("api").http
        return
    with _client(url) as client:
        yield client


@dataclass(frozen=True)
class Runner:
    """An implementation whose jobs run, and an image that runs SCRIPT."""

    http: httpx.Client
    image: str

    def run(self, *scripts: str) -> dict[str, Any]:
        """The record of a job with a step for each script, once it has ended."""
        steps = [{"source": self.image, "environment": [{"variable": "SCRIPT", "value": script}]} for script in scripts]
        job_id = self.http.post("/jobs", json={"steps": steps}).json()["id"]
        deadline = time.monotonic() + 60
        while (record := self.record(job_id))["status"] not in ("complete", "error"):
            assert time.monotonic() < deadline, record
            time.sleep(0.05)
        return record

    def record(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/jobs/{job_id}").raise_for_status().json()
        return found

    def log(self, job_id: str, **params: object) -> list[str]:
        lines: list[str] = self.http.get(f"/jobs/{job_id}/log", params=params).raise_for_status().json()["lines"]  # type: ignore[arg-type]
        return lines


_SHELL = 'eval "$SCRIPT"'


@pytest.fixture(scope="module", params=["docker", "kubernetes"])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """With each backend, where it is our own."""
    url = os.environ.get("DRAY_URL")
    if url is None:
        yield from (_on_docker if request.param == "docker" else _on_kubernetes)(request)
        return
    if request.param == "kubernetes":
        pytest.skip("what runs the jobs of DRAY_URL is its own matter")
    with _client(url) as client:
        yield Runner(client, os.environ.get("DRAY_TEST_IMAGE") or request.getfixturevalue("image").shell(_SHELL))


def _on_docker(request: pytest.FixtureRequest) -> Iterator[Runner]:
    request.getfixturevalue("redis")
    served = Served(request.getfixturevalue("engine"))
    yield Runner(served.http, request.getfixturevalue("image").shell(_SHELL))
    served.close()


def _on_kubernetes(request: pytest.FixtureRequest) -> Iterator[Runner]:
    request.getfixturevalue("redis")
    nodes, namespace = request.getfixturevalue("node_images"), request.getfixturevalue("job_namespace")
    engine = request.getfixturevalue("engine")
    served = Clustered(engine, namespace, nodes.ours, (), {})
    yield Runner(served.http, nodes.of(request.getfixturevalue("image").shell(_SHELL)))
    served.close()


@pytest.fixture(scope="module")
def five_lines(runner: Runner) -> str:
    """A complete job with the lines 0 to 4."""
    record = runner.run("printf '0\\n1\\n'", "cat > /dev/null; printf '2\\n3\\n4\\n'")
    assert record["status"] == "complete"
    return str(record["id"])


def _client(url: str) -> httpx.Client:
    token = os.environ.get("DRAY_TOKEN")
    return httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {token}"} if token else {}, trust_env=False)


def _post(http: httpx.Client, job: object) -> str:
    answer = http.post("/jobs", json=job)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _ids(http: httpx.Client) -> list[str]:
    return [job["id"] for job in http.get("/jobs").raise_for_status().json()]


# --- POST /jobs


def test_a_job_is_echoed_with_its_id(http: httpx.Client) -> None:
    answer = http.post("/jobs", json=DEMO)
    assert answer.status_code == 201
    assert answer.headers["content-type"].startswith("application/json")
    echoed = answer.json()
    assert ID.fullmatch(echoed.pop("id"))
    assert echoed == DEMO


def test_ids_differ(http: httpx.Client) -> None:
    assert _post(http, SMALL) != _post(http, SMALL)


def test_unknown_fields_are_dropped(http: httpx.Client) -> None:
    step = {"source": "dray.invalid/none", "privileged": ["x"], "environment": [{"variable": "A", "value": "b", "public": True}]}
    echoed = http.post("/jobs", json={"steps": [step], "priority": 7}).json()
    del echoed["id"]
    assert echoed == {"steps": [{"source": "dray.invalid/none", "environment": [{"variable": "A", "value": "b"}]}]}


def test_what_is_empty_is_left_out(http: httpx.Client) -> None:
    step = {"name": "", "source": "dray.invalid/none", "environment": [], "output": "", "beginDelimiter": "", "endDelimiter": "", "refresh": False}
    echoed = http.post("/jobs", json={"name": "", "steps": [step], "environment": []}).json()
    assert echoed == {"id": echoed["id"], "steps": [{"source": "dray.invalid/none"}]}


def test_every_field_comes_back(http: httpx.Client) -> None:
    step = {
        "name": "all",
        "source": "dray.invalid/none:1.2",
        "environment": [{"variable": "A", "value": "=\"'\\ \u2603"}],
        "output": "/out/put.txt",
        "beginDelimiter": "--begin--",
        "endDelimiter": "--end--",
        "refresh": True,
    }
    job = {"name": "all \U0001f600", "steps": [step], "environment": [{"variable": "B", "value": ""}]}
    echoed = http.post("/jobs", json=job).json()
    del echoed["id"]
    assert echoed == job


@pytest.mark.parametrize("output", ["stdout", "stderr"])
def test_a_posted_output_is_echoed(http: httpx.Client, output: str) -> None:
    step = {"source": "dray.invalid/none", "output": output}
    assert http.post("/jobs", json={"steps": [step]}).json()["steps"] == [step]


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "nonsense", "text/json; charset=x"])
def test_any_content_type_is_read_as_json(http: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert http.post("/jobs", content=b'{"steps": [{"source": "dray.invalid/none"}]}', headers=headers).status_code == 201


def test_null_counts_as_absent(http: httpx.Client) -> None:
    step = {"source": "dray.invalid/none", "name": None, "environment": None, "output": None, "refresh": None}
    echoed = http.post("/jobs", json={"name": None, "steps": [step], "environment": None}).json()
    assert echoed == {"id": echoed["id"], "steps": [{"source": "dray.invalid/none"}]}


@ours
def test_the_answer_says_where_the_job_is(http: httpx.Client) -> None:
    answer = http.post("/jobs", json=SMALL)
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    assert http.get(answer.headers["location"]).json()["id"] == answer.json()["id"]


@ours
def test_fields_come_in_a_fixed_order(http: httpx.Client) -> None:
    step = b'{"refresh":true,"endDelimiter":"e","beginDelimiter":"b","output":"stderr","environment":[{"value":"v","variable":"V"}],"source":"s","name":"n"}'
    echoed = http.post("/jobs", content=b'{"environment":[{"value":"w","variable":"W"}],"steps":[' + step + b'],"name":"j"}').text
    in_order = '"name":"n","source":"s","environment":[{"variable":"V","value":"v"}],"output":"stderr","beginDelimiter":"b","endDelimiter":"e","refresh":true'
    assert re.fullmatch(r'\{"id":"[^"]+","name":"j","steps":\[\{' + re.escape(in_order) + r'\}\],"environment":\[\{"variable":"W","value":"w"\}\]\}', echoed)


@ours
def test_a_body_of_just_the_limit_is_taken(http: httpx.Client) -> None:
    body = b'{"steps": [{"source": "dray.invalid/none"}]}'
    assert http.post("/jobs", content=body + b" " * (2**20 - len(body))).status_code == 201


# --- GET /jobs


def test_the_list_has_all_ids_oldest_first(http: httpx.Client) -> None:
    before = _ids(http)
    posted = [_post(http, SMALL) for _ in range(3)]
    assert _ids(http) == before + posted


def test_the_list_has_ids_only(http: httpx.Client) -> None:
    _post(http, SMALL)
    assert all(list(job) == ["id"] for job in http.get("/jobs").json())


# --- GET /jobs/ID


def test_a_new_job_has_an_id_and_a_status(http: httpx.Client) -> None:
    job_id = _post(http, SMALL)
    record = http.get(f"/jobs/{job_id}").json()
    assert record["id"] == job_id
    assert record["status"] in ("", "running", "error")  # an engine may find at once that there is no such image


@ours
def test_a_new_job_runs_and_has_all_of_the_readmes_fields(http: httpx.Client) -> None:
    record = http.get(f"/jobs/{_post(http, SMALL)}").json()
    assert record["stepsCompleted"] == 0
    assert record["status"] in ("running", "error")
    assert GO_TIME.fullmatch(record["createdAt"])


@ours
def test_no_answer_but_the_echo_has_values_of_the_environment(http: httpx.Client) -> None:
    variables = [{"variable": "TOKEN", "value": "hunter2secret"}]
    job_id = _post(http, {"steps": [{"source": "dray.invalid/none", "environment": variables}], "environment": variables})
    for path in ("/jobs", f"/jobs/{job_id}", f"/jobs/{job_id}/log", f"/jobs/{job_id}/output"):
        assert "hunter2secret" not in http.get(path).text


def test_a_complete_job_says_so(runner: Runner) -> None:
    record = runner.run("true", "true", "true")
    assert record["status"] == "complete"
    assert record["stepsCompleted"] == 3


def test_a_failed_job_counts_the_steps_that_ended_well(runner: Runner) -> None:
    record = runner.run("true", "exit 3", "true")
    assert record["status"] == "error"
    assert record["stepsCompleted"] == 1


@ours
def test_a_complete_job_says_when_and_how(runner: Runner) -> None:
    record = runner.run("printf abc", "sleep 0.2; cat")
    assert GO_TIME.fullmatch(record["createdAt"])
    assert isinstance(record["finishedIn"], float)
    assert 0.2 < record["finishedIn"] < 60
    assert list(record) == ["id", "stepsCompleted", "status", "createdAt", "finishedIn", "name", "startedAt", "finishedAt", "labels", "steps"]
    step = record["steps"][1]
    assert (step["state"], step["exitCode"], step["bytesIn"], step["bytesOut"], step["attempt"]) == ("complete", 0, 3, 3, 1)
    times = [record["startedAt"], step["startedAt"], step["finishedAt"], record["finishedAt"]]
    assert all(RFC3339.fullmatch(when) for when in times)
    assert times == sorted(times)


@ours
def test_a_failed_job_says_why(runner: Runner) -> None:
    record = runner.run("exit 3", "true")
    assert record["reason"] == "exit_code"
    assert "step 1" in record["message"]
    assert [step["state"] for step in record["steps"]] == ["error", "waiting"]
    assert [step["exitCode"] for step in record["steps"]] == [3, None]


# --- GET /jobs/ID/log


@pytest.mark.parametrize(
    ("index", "first"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("-0", 0),
        ("1", 1),
        ("+1", 1),
        ("0000000000000000000000003", 3),
        ("4", 4),
        ("5", 5),
        ("6", 5),
        ("2147483648", 5),
        ("9223372036854775807", 5),
        ("-1", 4),
        ("-2", 3),
        ("-5", 0),
        ("-6", 0),
        ("-9223372036854775807", 0),
        ("abc", 0),
        ("1x", 0),
        ("1.5", 0),
        ("1e1", 0),
        ("0x1", 0),
        (" 1", 0),
        ("1_0", 0),
        ("\u0663", 0),
        ("--1", 0),
    ],
)
def test_the_log_from_an_index_on(runner: Runner, five_lines: str, index: str | None, first: int) -> None:
    params = {} if index is None else {"index": index}
    assert runner.log(five_lines, **params) == ["0", "1", "2", "3", "4"][first:]


@ours
@pytest.mark.parametrize(("index", "first"), [("9" * 30, 5), ("-" + "9" * 30, 0), ("9" * 5000, 5)])
def test_an_index_beyond_all_numbers_is_still_one(runner: Runner, five_lines: str, index: str, first: int) -> None:
    assert runner.log(five_lines, index=index) == ["0", "1", "2", "3", "4"][first:]


def test_both_streams_are_logged(runner: Runner) -> None:
    record = runner.run("echo out; sleep 0.3; echo err >&2")
    assert runner.log(record["id"]) == ["out", "err"]


def test_an_empty_line_is_a_line(runner: Runner) -> None:
    record = runner.run("printf 'a\\n\\nb\\r\\n\\nlast'")
    assert runner.log(record["id"]) == ["a", "", "b", "", "last"]


@ours
@pytest.mark.parametrize(
    ("index", "limit", "lines"), [(0, 1, ["0"]), (1, 2, ["1", "2"]), (3, 9, ["3", "4"]), (5, 1, []), (-2, 1, ["3"]), (0, 10**30, ["0", "1", "2", "3", "4"])]
)
def test_no_more_lines_than_asked_for(runner: Runner, five_lines: str, index: int, limit: int, lines: list[str]) -> None:
    assert runner.log(five_lines, index=index, limit=limit) == lines


def test_a_job_that_wrote_nothing_has_no_lines(runner: Runner) -> None:
    assert runner.log(runner.run("true")["id"]) == []


@ours
def test_bytes_that_are_not_utf8_are_replaced(runner: Runner) -> None:
    record = runner.run("printf '\\377\\nok \\303\\244\\n\\342\\202\\n'")
    assert runner.log(record["id"]) == ["\ufffd", "ok ä", "\ufffd"]


# --- GET /jobs/ID/output


@ours
def test_the_output_is_what_the_last_step_wrote(runner: Runner) -> None:
    record = runner.run("printf 'a\\0b\\r\\n\\377'", "cat")
    answer = runner.http.get(f"/jobs/{record['id']}/output")
    assert answer.content == b"a\0b\r\n\xff"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == "6"


@ours
def test_a_failed_job_has_no_output(runner: Runner) -> None:
    record = runner.run("echo half; exit 1")
    answer = runner.http.get(f"/jobs/{record['id']}/output")
    assert answer.status_code == 409
    assert "ended in error" in answer.json()["detail"]


@ours
def test_a_running_job_has_no_output_yet(http: httpx.Client) -> None:
    answer = http.get(f"/jobs/{_post(http, SMALL)}/output")
    assert answer.status_code == 409


# --- DELETE /jobs/ID


def test_a_deleted_job_is_gone(http: httpx.Client) -> None:
    kept, deleted = _post(http, SMALL), _post(http, SMALL)
    answer = http.delete(f"/jobs/{deleted}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert http.get(f"/jobs/{deleted}").status_code == 404
    assert http.get(f"/jobs/{deleted}/log").status_code == 404
    assert http.delete(f"/jobs/{deleted}").status_code == 404
    assert deleted not in _ids(http)
    assert kept in _ids(http)


def test_a_finished_job_can_be_deleted(runner: Runner) -> None:
    job_id = runner.run("echo x")["id"]
    assert runner.http.delete(f"/jobs/{job_id}").status_code == 204
    assert runner.http.get(f"/jobs/{job_id}/log").status_code == 404


# --- what is not there


@pytest.mark.parametrize(("method", "path"), [("GET", "/jobs/{}"), ("GET", "/jobs/{}/log"), ("DELETE", "/jobs/{}")])
@pytest.mark.parametrize("job_id", [UNKNOWN, "x", "%00", "..", "%F0%9F%98%80", "a%20b"])
def test_an_unknown_job_is_404(http: httpx.Client, method: str, path: str, job_id: str) -> None:
    assert http.request(method, path.format(job_id)).status_code == 404


def test_a_job_is_not_known_by_its_id_in_lower_case(http: httpx.Client) -> None:
    assert http.get(f"/jobs/{_post(http, SMALL).lower()}").status_code == 404


@pytest.mark.parametrize("path", ["/", "/job", "/jobs/a/b", "/jobs/a/log/b", "/vx/jobs", "/v/jobs", "/v1x/jobs", "/v-1/jobs", "/v1.0/jobs"])
def test_an_unknown_route_is_404(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


@ours
@pytest.mark.parametrize(
    ("method", "path", "allow"), [("PUT", "/jobs", "GET, HEAD, POST"), ("POST", "/jobs/x", "DELETE, GET, HEAD"), ("DELETE", "/jobs/x/log", "GET, HEAD")]
)
def test_a_wrong_method_is_405_and_says_what_is_right(http: httpx.Client, method: str, path: str, allow: str) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


@ours
def test_every_error_is_a_problem_document(http: httpx.Client) -> None:
    answers = [
        http.post("/jobs", content=b"{"),
        http.post("/jobs", json={}),
        http.get(f"/jobs/{UNKNOWN}"),
        http.get("/nowhere"),
        http.put("/jobs"),
        http.get(f"/jobs/{UNKNOWN}/log?limit=0"),
        http.get("/jobs", headers={"Host": "elsewhere.example"}),
        http.post("/jobs", content=b" " * (2**20 + 1)),
    ]
    for answer, status in zip(answers, [400, 422, 404, 404, 405, 422, 403, 413], strict=True):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        document = answer.json()
        assert (document["type"], document["status"]) == ("about:blank", status)
        assert document["title"]
        assert document["detail"]


# --- /v<number>


@pytest.mark.parametrize("version", ["v1", "v0", "v12", "v007"])
def test_every_route_answers_under_a_version(http: httpx.Client, version: str) -> None:
    answer = http.post(f"/{version}/jobs", json=SMALL)
    assert answer.status_code == 201
    path = f"/{version}/jobs/{answer.json()['id']}"
    assert answer.json()["id"] in [job["id"] for job in http.get(f"/{version}/jobs").json()]
    assert http.get(path).json()["id"] == answer.json()["id"]
    assert http.get(f"{path}/log").json() == {"lines": []}
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


@ours
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
def test_our_own_routes_answer_under_a_version_too(http: httpx.Client, path: str) -> None:
    assert http.get(f"/v1{path}").status_code == http.get(path).status_code == 200


# --- HEAD, health, documents


@ours
def test_head_is_get_without_its_body(http: httpx.Client) -> None:
    job_id = _post(http, SMALL)
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/log", f"/jobs/{job_id}/output", f"/jobs/{UNKNOWN}", "/healthz", "/readyz", "/openapi.json", "/docs"):
        head, get = http.head(path), http.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
    assert http.head("/jobs").status_code == 200


@ours
def test_health(http: httpx.Client) -> None:
    for path in ("/healthz", "/readyz"):
        assert http.get(path).json() == {"status": "ok"}


@ours
def test_the_documentation_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    answer = http.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert re.findall(r"(?:src|href)=\"?([^ >\"]+)", answer.text) == ["openapi.json"]
    assert "POST /jobs" in answer.text


@ours
def test_openapi_describes_every_route(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    routes = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    jobs = {"POST /jobs", "GET /jobs", "GET /jobs/{id}", "GET /jobs/{id}/log", "GET /jobs/{id}/output", "DELETE /jobs/{id}"}
    jobs |= {"POST /filter", "GET /jobs/{id}/spec", "GET /jobs/{id}/input"}
    jobs |= {"POST /jobs/{id}/cancel", "POST /jobs/{id}/rerun", "GET /jobs/{id}/steps/{step}/output"}
    assert routes == jobs | {"GET /healthz", "GET /readyz", "GET /metrics"}
    create = document["paths"]["/jobs"]["post"]
    assert create["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/JobSpec"}
    assert set(create["responses"]) == {"201", "400", "401", "403", "413", "422", "500", "503"}
    assert set(re.findall(r"#/components/schemas/([^\"]+)", http.get("/openapi.json").text)) == set(document["components"]["schemas"])
    assert document["components"]["schemas"]["JobSpec"]["properties"]["steps"]["maxItems"] == 100


@ours
def test_answers_have_the_fields_that_openapi_names(http: httpx.Client, runner: Runner) -> None:
    shapes = http.get("/openapi.json").json()["components"]["schemas"]
    for record in (runner.run("true"), runner.run("exit 1"), http.get(f"/jobs/{_post(http, DEMO)}").json()):
        assert set(record) <= set(shapes["JobRecord"]["properties"])
        assert set(record) >= {"id", "stepsCompleted", "status", "createdAt", "name", "startedAt", "finishedAt", "steps"}
        assert all(set(shapes["StepRecord"]["required"]) <= set(step) <= set(shapes["StepRecord"]["properties"]) for step in record["steps"])
