"""What clients ask of our API beyond the original's: lists, cancel, rerun, idempotency keys, preflight, step outputs, metrics.

An operator is played by the tests, through the store.
"""

from __future__ import annotations

import json
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from dray.errors import FieldError, Invalid
from dray.outputs import Outputs
from dray.record import Job, Phase, StepState
from dray.store import SMALL_OUTPUT, Store
from kit.api import Api
from kit.process import until
from kit.redis import RedisServer

pytestmark = pytest.mark.ours

JOB: dict[str, Any] = {"steps": [{"source": "a"}]}
THREE: dict[str, Any] = {"name": "three", "labels": {"team": "a"}, "steps": [{"source": "a"}, {"source": "b"}, {"source": "c", "always": True}]}


@pytest.fixture
def alone(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> Api:
    """An API with an empty Redis of its own."""
    return make_api(redis_url=make_redis().url)


def _begin(api: Api) -> str:
    """The first job that waits is begun."""

    async def begin(store: Store) -> str:
        await store.enlist("me", "e", 60)
        job_id = await store.begin("me", "e")
        assert job_id is not None
        await store.save(replace(await store.get(job_id), phase=Phase.RUNNING))
        return job_id

    return api.with_store(begin)


def _change(api: Api, job_id: str, change: Callable[[Job], Job]) -> None:
    async def changed(store: Store) -> None:
        await store.save(change(await store.get(job_id)))

    api.with_store(changed)


def _ended(phase: Phase = Phase.COMPLETE) -> Callable[[Job], Job]:
    return lambda job: replace(job, phase=phase, finished_at=job.created_at + 1_500_000)


# --- lists


def _pages(api: Api, query: str) -> list[list[dict[str, Any]]]:
    """All pages, by their links."""
    pages, path = [], f"/jobs?{query}"
    while path:
        answer = api.http.get(path).raise_for_status()
        pages.append(answer.json())
        found = re.fullmatch(r'<(/.*)>; rel="next"', answer.headers.get("link", ""))
        path = found[1] if found else ""
    return pages


def test_a_list_is_read_page_by_page_by_its_links(alone: Api) -> None:
    posted = [alone.post(JOB) for _ in range(7)]
    pages = _pages(alone, "limit=3")
    assert [[job["id"] for job in page] for page in pages] == [posted[:3], posted[3:6], posted[6:]]
    newest = _pages(alone, "order=newest&limit=4")
    assert [job["id"] for page in newest for job in page] == posted[::-1]
    assert [job["id"] for job in alone.http.get("/v1/jobs?order=oldest").json()] == posted
    assert alone.http.get("/v1/jobs?limit=1").links["next"]["url"].startswith("/v1/jobs?")
    assert alone.http.get("/jobs").json() == [{"id": job_id} for job_id in posted]
    assert alone.http.head("/jobs?limit=1").links == alone.http.get("/jobs?limit=1").links


def test_a_list_is_filtered_by_status_name_and_labels(alone: Api) -> None:
    first, second = alone.post(THREE), alone.post({**JOB, "name": "ä & b", "labels": {"team": "b", "x.y/z": ""}})
    third = alone.post(JOB)
    for phase in (Phase.COMPLETE, Phase.ERROR):
        _change(alone, _begin(alone), _ended(phase))
    expected = {
        "status=complete": [first],
        "status=error": [second],
        "status=running": [third],
        "name=three": [first],
        "name=%C3%A4%20%26%20b": [second],
        "label=team": [first, second],
        "label=team=b": [second],
        "label=x.y/z=": [second],
        "label=team&label=x.y%2Fz": [second],
        "label=team&name=three&status=complete": [first],
        "label=team&status=running": [],
        "name=none": [],
    }
    for query, ids in expected.items():
        assert [job["id"] for page in _pages(alone, f"{query}&limit=1") for job in page] == ids, query


def test_a_summary_says_what_a_list_needs(alone: Api) -> None:
    job_id = alone.post(THREE)
    _begin(alone)
    (running,) = alone.http.get("/jobs?limit=5").json()
    record = alone.http.get(f"/jobs/{job_id}").json()
    expected = {"id": job_id, "name": "three", "status": "running", "createdAt": record["createdAt"], "stepsCompleted": 0, "steps": 3, "labels": {"team": "a"}}
    assert running == expected
    _change(alone, job_id, _ended())
    assert alone.http.get("/jobs?limit=5").json() == [{**expected, "status": "complete", "finishedIn": 1.5}]


# --- cancel


def test_a_job_that_waits_is_cancelled_at_once(alone: Api) -> None:
    job_id = alone.post(JOB)
    answer = alone.http.post(f"/jobs/{job_id}/cancel")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["reason"]) == ("error", "cancelled")
    assert answer.json() == alone.http.get(f"/jobs/{job_id}").json()
    again = alone.http.post(f"/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()) == (200, answer.json())


def test_a_job_that_runs_is_being_cancelled(alone: Api) -> None:
    job_id = alone.post(JOB)
    _begin(alone)
    for _ in range(2):
        answer = alone.http.post(f"/v1/jobs/{job_id}/cancel")
        assert answer.status_code == 202
        assert (answer.json()["status"], answer.json()["cancelRequested"]) == ("running", True)
    _change(alone, job_id, _ended(Phase.ERROR))
    assert "cancelRequested" not in alone.http.get(f"/jobs/{job_id}").json()
    again = alone.http.post(f"/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["title"]) == (409, "Finished")


def test_only_a_job_can_be_cancelled_or_run_again(api: Api) -> None:
    for path in ("/jobs/none/cancel", "/jobs/none/rerun"):
        assert api.http.post(path).status_code == 404
        assert (api.http.get(path).status_code, api.http.get(path).headers["allow"]) == (405, "POST")


# --- rerun


def _with_outputs(api: Api, *outputs: bytes) -> str:
    """A job that failed in its last piped step; the outputs of those before are kept."""
    job_id = api.post({"name": "r", "steps": [{"source": "a"}] * (len(outputs) + 1) + [{"source": "z", "always": True}]})
    states = tuple(StepState(Phase.COMPLETE, exit_code=0, bytes_out=len(output), sha256="aa") for output in outputs)

    async def keep(store: Store) -> None:
        job = await store.get(job_id)
        for step, output in enumerate(outputs):
            if len(output) <= SMALL_OUTPUT:
                await store.keep_output(job, step, output)
            else:
                await Outputs(api.outputs).put(job_id, step, _one(output))
        await store.save(replace(_ended(Phase.ERROR)(job), steps=(*states, StepState(Phase.ERROR, attempt=2), StepState(Phase.COMPLETE))))

    api.with_store(keep)
    return job_id


async def _one(block: bytes) -> Any:
    yield block


def test_a_job_is_run_again_from_its_first_step(api: Api) -> None:
    job_id = _with_outputs(api, b"one")
    answer = api.http.post(f"/jobs/{job_id}/rerun")
    assert answer.status_code == 201
    new_id = answer.json()["id"]
    assert answer.headers["location"] == f"/jobs/{new_id}"
    assert answer.json() == {"id": new_id, "name": "r", "steps": [{"source": "a"}, {"source": "a"}, {"source": "z", "always": True}], "rerunOf": job_id}
    record = api.http.get(f"/jobs/{new_id}").json()
    assert (record["rerunOf"], record["status"], record["stepsCompleted"]) == (job_id, "running", 0)
    assert {step["state"] for step in record["steps"]} == {"waiting"}


@pytest.mark.parametrize("output", [b"", b"small", b"x" * (SMALL_OUTPUT + 1)], ids=len)
def test_a_job_goes_on_from_a_later_step_with_the_output_that_is_kept(api: Api, output: bytes) -> None:
    job_id = _with_outputs(api, b"one", output)
    new_id = api.http.post(f"/jobs/{job_id}/rerun?from=3").json()["id"]
    api.http.delete(f"/jobs/{job_id}").raise_for_status()

    async def forget(store: Store) -> None:
        job = await store.load(job_id)
        assert job is not None
        await Outputs(api.outputs).remove(job_id)
        await store.forget(job)

    api.with_store(forget)
    record = api.http.get(f"/jobs/{new_id}").json()
    assert [step["state"] for step in record["steps"]] == ["complete", "complete", "waiting", "waiting"]
    assert (record["stepsCompleted"], record["steps"][1]["bytesOut"], record["steps"][1]["sha256Out"]) == (2, len(output), "aa")
    assert api.http.get(f"/jobs/{new_id}/steps/2/output").content == output
    assert api.http.get(f"/jobs/{new_id}/steps/1/output").status_code == 404


@pytest.mark.parametrize("size", [5, SMALL_OUTPUT + 1])
def test_a_job_whose_output_is_not_kept_cannot_go_on_from_there(api: Api, size: int) -> None:
    job_id = api.post({"steps": [{"source": "a"}] * 2})
    _change(api, job_id, lambda job: replace(job, steps=(StepState(Phase.COMPLETE, bytes_out=size), StepState())))
    before = api.ids()
    answer = api.http.post(f"/jobs/{job_id}/rerun?from=2")
    assert (answer.status_code, answer.json()["title"]) == (409, "Not kept")
    assert "DRAY_KEEP_OUTPUTS" in answer.json()["detail"]
    assert api.ids() == before


def test_a_job_cannot_go_on_from_a_step_that_never_had_its_input(api: Api) -> None:
    job_id = _with_outputs(api, b"one")
    _change(api, job_id, lambda job: replace(job, steps=(StepState(Phase.ERROR), *job.steps[1:])))
    answer = api.http.post(f"/jobs/{job_id}/rerun?from=2")
    assert answer.status_code == 409
    assert "did not complete" in answer.json()["detail"]


def test_a_rerun_under_a_key_happens_once(api: Api) -> None:
    job_id = _with_outputs(api, b"x" * (SMALL_OUTPUT + 1))
    headers = {"Idempotency-Key": f"rerun of {job_id}".replace(" ", "-")}
    answers = [api.http.post(f"/jobs/{job_id}/rerun?from=2", headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert api.http.get(f"/jobs/{answers[0].json()['id']}/steps/1/output").status_code == 200
    assert api.http.post(f"/jobs/{job_id}/rerun", headers=headers).status_code == 422


def test_settings_forbid_what_they_do_not_allow(make_api: Callable[..., Api]) -> None:
    free, strict = make_api(), make_api(DRAY_IMAGES="docker.io/team/*", DRAY_LIMITS_MAX="memory=64Mi")
    bad = {"steps": [{"source": "team/a"}, {"source": "evil", "resources": {"memory": "1Gi"}}]}
    job_id = free.post(bad)
    for answer in (strict.http.post("/jobs", json=bad), strict.http.post(f"/jobs/{job_id}/rerun")):
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["steps[1].source", "steps[1].resources.memory"]
    strict.post({"steps": [{"source": "team/a"}]})


# --- idempotency keys


def test_a_request_made_again_under_its_key_is_answered_the_same_by_any_api(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> None:
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    apis = [make_api(redis_url=redis.url) for _ in range(2)]
    headers = {"Idempotency-Key": "once"}
    answers = [api.http.post("/jobs", json=THREE, headers=headers) for api in apis * 2]
    redis.kill()
    redis.start()
    written_otherwise = json.dumps({name: THREE[name] for name in ("steps", "labels", "name")}, indent=3)
    answers.append(apis[0].http.post("/jobs", content=written_otherwise, headers=headers))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == len({answer.headers["location"] for answer in answers}) == 1
    assert apis[0].ids() == [answers[0].json()["id"]]
    for other in ({**THREE, "name": "other"}, JOB):
        refused = apis[1].http.post("/jobs", json=other, headers=headers)
        assert (refused.status_code, refused.json()["title"]) == (422, "Idempotency-Key used before")
    assert apis[1].http.post("/jobs", json=THREE, headers={"Idempotency-Key": "twice"}).json()["id"] != answers[0].json()["id"]


# --- preflight


def _answering(api: Api, answer: Any) -> threading.Thread:
    """An operator that answers one question."""

    async def work(store: Store) -> None:
        await store.enlist("me", "e", 60)
        while (asked := await store.asked()) is None:
            continue
        await store.answer(asked[0], answer)

    async def enlisted(store: Store) -> bool:
        return bool(await store.operators())

    thread = threading.Thread(target=api.with_store, args=(work,))
    thread.start()
    until(lambda: api.with_store(enlisted), 10, "the operator is there")
    return thread


def test_preflight_pins_the_images(alone: Api) -> None:
    working = _answering(alone, ("a@sha256:1", "b@sha256:2", "c@sha256:3"))
    answer = alone.http.post("/jobs?preflight=true", json=THREE)
    working.join()
    assert answer.status_code == 201
    record = alone.http.get(f"/jobs/{answer.json()['id']}").json()
    assert [step["image"] for step in record["steps"]] == ["a@sha256:1", "b@sha256:2", "c@sha256:3"]
    assert [step["source"] for step in record["steps"]] == ["a", "b", "c"]


def test_preflight_refuses_a_job_that_could_not_run(alone: Api) -> None:
    working = _answering(alone, Invalid([FieldError("steps[1].source", "no such image")]))
    answer = alone.http.post("/jobs?preflight=true", json=THREE)
    working.join()
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "steps[1].source", "message": "no such image"}]
    assert alone.ids() == []


def test_preflight_without_an_operator_is_unavailable(alone: Api) -> None:
    answer = alone.http.post("/jobs?preflight=true", json=JOB)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "no operator" in answer.json()["detail"]
    assert alone.ids() == []
    assert alone.http.post("/jobs?preflight=false", json=JOB).status_code == 201


# --- outputs of steps


def test_the_output_of_each_step_is_there_while_it_is_kept(api: Api) -> None:
    large = b"x" * (SMALL_OUTPUT + 1)
    job_id = _with_outputs(api, b"one", large)
    for step, output in ((1, b"one"), (2, large)):
        answer = api.http.get(f"/jobs/{job_id}/steps/{step}/output")
        assert (answer.content, answer.headers["content-type"]) == (output, "application/octet-stream")
        assert api.http.head(f"/jobs/{job_id}/steps/{step}/output").headers["content-length"] == str(len(output))
    for step in (3, 4):
        assert "has no output" in api.http.get(f"/jobs/{job_id}/steps/{step}/output").json()["detail"]


# --- metrics


def _metrics(api: Api) -> dict[str, float]:
    answer = api.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_metrics_tell_what_is_stored_and_who_works(alone: Api) -> None:
    before = _metrics(alone)
    assert (before["dray_redis_up"], before["dray_jobs_waiting"], before["dray_oldest_waiting_seconds"], before["dray_operators_alive"]) == (1, 0, 0, 0)
    for _ in range(3):
        alone.post(JOB)
    _change(alone, _begin(alone), _ended())
    after = _metrics(alone)
    assert (after['dray_jobs_stored{status="running"}'], after['dray_jobs_stored{status="complete"}'], after['dray_jobs_stored{status="error"}']) == (2, 1, 0)
    assert (after["dray_jobs_waiting"], after["dray_operators_alive"]) == (2, 1)
    assert 0 < after["dray_oldest_waiting_seconds"] < 60


def test_metrics_count_requests_by_route_not_by_path(alone: Api) -> None:
    job_id = alone.post(JOB)
    for path in (f"/jobs/{job_id}", f"/v7/jobs/{job_id}", "/jobs/none", "/nowhere"):
        alone.http.get(path)
    alone.http.request("PROPFIND", "/jobs")
    found = _metrics(alone)
    assert found['dray_http_requests_total{method="GET",route="/jobs/{id}",status="200"}'] == 2
    assert found['dray_http_requests_total{method="GET",route="/jobs/{id}",status="404"}'] == 1
    assert found['dray_http_requests_total{method="GET",route="none",status="404"}'] == 1
    assert found['dray_http_requests_total{method="POST",route="/jobs",status="201"}'] == 1
    assert any(name.startswith('dray_http_requests_total{method="other"') for name in found)
    assert found['dray_http_request_seconds_count{method="GET",route="/jobs/{id}"}'] == 3
    assert not any(job_id in name or "nowhere" in name or "PROPFIND" in name for name in found)


def test_metrics_are_there_without_redis_and_say_so(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> None:
    redis = make_redis()
    api = make_api(redis_url=redis.url)
    redis.kill()
    found = _metrics(api)
    assert found["dray_redis_up"] == 0
    assert not any(name.startswith(("dray_jobs_stored", "dray_jobs_waiting", "dray_operators")) for name in found)


def test_metrics_want_the_token_too(make_api: Callable[..., Api]) -> None:
    api = make_api(DRAY_TOKEN="0123456789abcdef")
    assert api.http.get("/metrics").status_code == 200
    assert api.http.get("/metrics", headers={"Authorization": ""}).status_code == 401


# --- a Redis that fails


def _asked(api: Api, job_id: str) -> dict[str, Callable[[], Any]]:
    return {
        "create": lambda: api.http.post("/jobs", json=JOB),
        "show": lambda: api.http.get(f"/jobs/{job_id}"),
        "page": lambda: api.http.get("/jobs?limit=5"),
        "cancel": lambda: api.http.post(f"/jobs/{job_id}/cancel"),
        "rerun": lambda: api.http.post(f"/jobs/{job_id}/rerun"),
        "delete": lambda: api.http.delete(f"/jobs/{job_id}"),
        "follow": lambda: api.http.get(f"/jobs/{job_id}/log", headers={"Accept": "text/event-stream"}),
        "step output": lambda: api.http.get(f"/jobs/{job_id}/steps/1/output"),
    }


def test_a_redis_that_hangs_is_503_within_ten_seconds_for_all_at_once(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> None:
    redis = make_redis()
    api = make_api(redis_url=redis.url)
    job_id = api.post(JOB)
    redis.process.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(96) as pool:
            answers = list(pool.map(lambda call: call(), list(_asked(api, job_id).values()) * 12))
        assert time.monotonic() - began < 15
        assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}
    finally:
        redis.process.signal(signal.SIGCONT)
    assert api.http.get("/readyz").status_code == 200


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_redis_that_takes_nothing_is_503_and_no_job_is_acknowledged(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer], how: str) -> None:
    redis = make_redis("--maxmemory-policy", "noeviction")
    api = make_api(redis_url=redis.url)
    job_id = api.post(JOB)
    with redis.client() as client:
        if how == "full":
            client.config_set("maxmemory", 1)
        else:
            client.replicaof("127.0.0.1", "1")
        for name in ("create", "cancel", "rerun"):
            answer = _asked(api, job_id)[name]()
            assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), name
        assert api.ids() == [job_id]
        assert api.http.get(f"/jobs/{job_id}").json()["status"] == "running"
        if how == "full":
            client.config_set("maxmemory", 0)
        else:
            client.replicaof("no", "one")
    api.post(JOB)


# --- for one backend, for a time


def test_what_a_job_says_of_its_backend_and_its_time_comes_back_and_goes_on_to_a_rerun(alone: Api) -> None:
    job = {**JOB, "backend": "kubernetes", "kubernetes": {"labels": {"a": "b"}}, "ttlSecondsAfterFinished": 0}
    answer = alone.http.post("/jobs", json=job)
    job_id = answer.json()["id"]
    assert (answer.status_code, answer.json()) == (201, {"id": job_id, **job})
    assert alone.http.get(f"/jobs/{job_id}/spec").json() == answer.json()
    alone.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    rerun = alone.http.post(f"/jobs/{job_id}/rerun").json()
    assert rerun == {"id": rerun["id"], "rerunOf": job_id, **job}


def test_what_a_backend_cannot_do_is_refused_of_a_job_that_names_it(alone: Api) -> None:
    for job, field in (({"backend": "docker", "kubernetes": {}}, "kubernetes"), ({"backend": "kubernetes", "network": "none"}, "network")):
        refused = alone.http.post("/jobs", json={**JOB, **job})
        assert (refused.status_code, [error["field"] for error in refused.json()["errors"]]) == (422, [field])
    assert alone.ids() == []


def test_jobs_for_a_backend_are_told_among_those_that_wait(alone: Api) -> None:
    for backend in ({}, {"backend": "docker"}, {"backend": "kubernetes"}):
        alone.post({**JOB, **backend})
    assert "dray_jobs_waiting 3.0" in alone.http.get("/metrics").text.splitlines()


# --- a filter, where no operator is


def test_a_job_is_made_of_a_header_and_its_input_of_the_body(api: Api) -> None:
    for content in (b"", b"in", b"x" * (SMALL_OUTPUT + 1)):
        answer = api.http.post("/v1/filter?wait=false", content=content, headers={"Dray-Job": json.dumps({"name": "ä", **JOB}, ensure_ascii=True)})
        job_id = answer.json()["id"]
        assert (answer.status_code, answer.headers["location"]) == (201, f"/jobs/{job_id}")
        assert answer.json() == {"id": job_id, "name": "ä", **JOB} == api.http.get(f"/jobs/{job_id}/spec").json()
        given = api.http.get(f"/jobs/{job_id}/input")
        assert (given.status_code, given.content if content else b"") == (200 if content else 404, content)


def _streamed(content: bytes) -> Iterator[bytes]:
    yield content


@pytest.mark.parametrize("given", [bytes, _streamed])
@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_who_asks_for_another_protocol_is_answered_in_this_one_and_its_body_is_no_request(api: Api, given: Any, protocol: str) -> None:
    job_id = api.post(JOB)
    for content in (b"", f"DELETE /jobs/{job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()):
        headers = {"Dray-Job": json.dumps(JOB), "Connection": "Upgrade, HTTP2-Settings", "Upgrade": protocol, "HTTP2-Settings": "AAMAAABk"}
        answer = api.http.post("/filter?wait=false", content=given(content), headers=headers)
        assert answer.status_code == 201
        assert api.http.get(f"/jobs/{answer.json()['id']}/input").content == content or content == b""
        assert api.http.get(f"/jobs/{job_id}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "detail"),
    [
        ([], 400, "Dray-Job"),
        ([("Dray-Job", json.dumps(JOB))] * 2, 400, "Dray-Job"),
        ([("Dray-Job", '{"steps": [}')], 400, "Dray-Job is not JSON"),
        ([("Dray-Job", '{"steps": []}')], 422, "steps"),
        ([("Dray-Job", json.dumps(JOB)), ("Idempotency-Key", "a b")], 422, "Idempotency-Key"),
    ],
)
def test_what_is_wrong_with_a_filter_is_told_though_its_body_still_comes(api: Api, headers: Any, status: int, detail: str) -> None:
    before = api.ids()

    def blocks() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    answer = api.http.post("/filter", content=blocks(), headers=headers)
    assert (answer.status_code, detail in answer.json()["detail"]) == (status, True)
    assert api.ids() == before


def test_a_key_is_of_the_job_and_its_input(api: Api) -> None:
    headers = {"Dray-Job": json.dumps(JOB), "Idempotency-Key": secrets.token_hex(8)}
    for content in (b"x" * 10, b"x" * (SMALL_OUTPUT + 1)):
        headers["Idempotency-Key"] += "."
        made = {api.http.post("/filter?wait=false", content=content, headers=headers).json()["id"] for _ in range(3)}
        assert len(made) == 1
        for other in (b"", content + b"x"):
            assert api.http.post("/filter?wait=false", content=other, headers=headers).status_code == 422
        assert api.http.post("/jobs", json=JOB, headers={"Idempotency-Key": headers["Idempotency-Key"]}).status_code == 422


def test_what_was_laid_for_a_job_that_redis_does_not_take_is_swept(make_api: Callable[..., Api], make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis()
    api = make_api(redis_url=server.url)

    def blocks() -> Iterator[bytes]:
        yield b"x" * 3_000_000
        until(lambda: any((api.dir / "outputs").rglob("*.partial")), 20, "it is being stored")
        server.kill()

    assert api.http.post("/filter", content=blocks(), headers={"Dray-Job": json.dumps(JOB)}).status_code == 503
    server.start()
    assert api.ids() == []
    with server.client() as redis:
        assert redis.zcard("dray:uploads") <= 1  # that Redis was killed: it may have forgotten
