"""Outputs and inputs that lie in a bucket, of a real S3 server: kept there, gone with their jobs, and not lost while it is away."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from kit.bucket import KEY, SECRET, Bucket
from kit.images import Images
from kit.process import Process, until
from kit.serving import Served

pytestmark = pytest.mark.ours

Serve = Callable[..., Served]
SIZE = 20_000_000  # more than one part of an upload


def a_job(image: Images, script: str = f"head -c {SIZE} /dev/zero") -> dict[str, Any]:
    return {"steps": [{"source": image.shell(script)}, {"source": image("cat")}]}


def on(serve: Serve, bucket: Bucket, **env: str) -> Served:
    """A test asks for its bucket before `serve`, so that it outlives what uses it."""
    return serve(**{**bucket.environment, "DRAY_OUTPUTS": bucket.url, **env})


def test_large_outputs_lie_in_the_bucket_until_their_job_is_deleted(bucket: Bucket, serve: Serve, image: Images) -> None:
    dray = on(serve, bucket)
    job_id = str(dray.run(a_job(image))["id"])
    assert {key: len(content) for key, content in bucket.objects().items()} == {f"dray/{job_id}/1": SIZE}
    assert dray.output(job_id) == bytes(SIZE)
    assert list((dray.data_dir).rglob("outputs/*")) == []
    assert dray.http.delete(f"/jobs/{job_id}").status_code == 204
    until(lambda: bucket.objects() == {}, 30, "its output is gone")
    assert [word for word in (KEY, SECRET, "Signature") if word in dray.process.output] == []


def test_they_go_with_jobs_that_are_kept_for_a_time(bucket: Bucket, serve: Serve, image: Images) -> None:
    dray = on(serve, bucket, DRAY_KEEP_TIME="1", DRAY_KEEP_OUTPUTS="1GiB")
    job_id = dray.post(a_job(image))
    until(lambda: dray.http.get(f"/jobs/{job_id}").status_code == 404, 60, "the job goes")
    until(lambda: bucket.objects() == {}, 30, "its outputs too")


def test_api_and_operator_meet_in_a_bucket(
    start: Callable[..., Process], start_api: Callable[[], httpx.Client], shared: dict[str, str], bucket: Bucket, image: Images
) -> None:
    shared |= {**bucket.environment, "DRAY_OUTPUTS": bucket.url}
    client = start_api()
    start("operator", **shared)
    answer = client.post("/filter", content=bytes(SIZE), headers={"Dray-Job": json.dumps({"steps": [{"source": image("cat")}]})}, timeout=100)
    assert answer.content == bytes(SIZE)
    job_id = client.get("/jobs").json()[0]["id"]
    assert set(bucket.objects()) == {f"dray/{job_id}/0", f"dray/{job_id}/input"}
    client.delete(f"/jobs/{job_id}")
    until(lambda: bucket.objects() == {}, 30, "nothing of it is left")


def test_nothing_is_lost_while_the_bucket_is_away(bucket: Bucket, serve: Serve, image: Images) -> None:
    dray = on(serve, bucket)
    earlier = str(dray.run(a_job(image))["id"])
    later = dray.post(a_job(image, f"sleep 2; head -c {SIZE} /dev/zero"))
    bucket.kill()
    unread = dray.http.get(f"/jobs/{earlier}/output")
    assert (unread.status_code, unread.json()["detail"].partition(":")[0]) == (503, "output store")
    until(lambda: f'backing off: output store: Could not connect to the endpoint URL: \\"http://{bucket.address}' in dray.process.output, 60, "it says why")
    assert dray.record(later)["status"] == "running"
    bucket.start()
    assert dray.wait(later)["status"] == "complete"
    assert [dray.output(job_id) for job_id in (earlier, later)] == [bytes(SIZE)] * 2


def test_a_job_deleted_while_the_bucket_is_away_goes_when_it_is_back(bucket: Bucket, serve: Serve, image: Images) -> None:
    dray = on(serve, bucket)
    job_id = str(dray.run(a_job(image))["id"])
    bucket.kill()
    assert dray.http.delete(f"/jobs/{job_id}").status_code == 204
    until(lambda: "backing off: output store" in dray.process.output, 60, "it is tried")
    bucket.start()
    until(lambda: bucket.objects() == {}, 60, "its output is gone")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"DRAY_OUTPUTS": "s3://missing/dray"}, "missing/dray: The specified bucket does not exist"),
        ({"AWS_SECRET_ACCESS_KEY": "another-secret"}, "The request signature we calculated does not match"),
        ({"AWS_SECRET_ACCESS_KEY": None, "AWS_ACCESS_KEY_ID": None, "AWS_EC2_METADATA_DISABLED": "true"}, "Unable to locate credentials"),
    ],
    ids=["bucket", "secret", "none"],
)
def test_a_store_that_is_not_what_it_should_be_is_named_and_costs_no_job(bucket: Bucket, serve: Serve, image: Images, wrong: dict[str, str], told: str) -> None:
    dray = on(serve, bucket, **wrong)
    refused = dray.http.post("/filter", content=bytes(SIZE), headers={"Dray-Job": json.dumps({"steps": [{"source": image("cat")}]})})
    assert refused.status_code == 503
    assert told in refused.json()["detail"]
    job_id = dray.post(a_job(image))
    until(lambda: f"backing off: output store: {told}" in dray.process.output, 60, "the operator says so")
    assert dray.record(job_id)["status"] == "running"
    assert dray.stop() == 0
    dray.start(**bucket.environment, DRAY_OUTPUTS=bucket.url)
    assert dray.wait(job_id)["status"] == "complete"
    assert dray.output(job_id) == bytes(SIZE)
