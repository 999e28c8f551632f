"""Many jobs at once on the cluster that KUBECONFIG names: each ends as it would alone, and they do not cost a watch each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.apiserver import ApiCalls, ApiServer
from kit.clustered import Clustered
from kit.images import Images
from kit.kubernetes import JobNamespace
from kit.nodes import NodeImages
from kit.process import until

JOBS = 200
WITHIN = 1500  # seconds for all to end
RENEWED = 300  # seconds that a watch lasts


@pytest.fixture
def calls(job_namespace: JobNamespace, tmp_path: Path) -> Iterator[ApiCalls]:
    """Between an operator and the API server."""
    server = ApiServer(tmp_path)
    with ApiCalls(server) as counting:
        yield counting
    server.close()


@pytest.mark.full
@pytest.mark.timeout(WITHIN + 600)
def test_two_hundred_jobs_at_once_end_as_each_would_alone(
    serve_on_cluster: Callable[..., Clustered], image: Images, node_images: NodeImages, job_namespace: JobNamespace, calls: ApiCalls
) -> None:
    began = time.monotonic()
    dray = serve_on_cluster(KUBECONFIG=str(job_namespace.kubeconfig_at(calls.url)), DRAY_JOBS=str(JOBS), LOG_LEVEL="info")
    source = node_images.of(image("cat"))
    posted = {dray.post({"steps": _steps(source, number)}): number for number in range(JOBS)}
    for job_id, number in posted.items():
        record = dray.wait(job_id, WITHIN)
        assert (record["status"], [step["attempt"] for step in record["steps"]]) == ("complete", [1, 1, 1]), record
        assert dray.output(job_id) == f"second {number}\n".encode()
        assert dray.log(job_id) == [f"{word} {number}" for word in ("zeroth", "first", "second")]
    until(lambda: not job_namespace.left(dray.instance), 300, "nothing is left in the cluster")
    assert calls.counted["POST jobs"] == JOBS
    assert calls.counted["WATCH pods"] <= 1 + (time.monotonic() - began) / RENEWED


def _steps(source: str, number: int) -> list[dict[str, object]]:
    """Each replaces the word before the number."""
    words = [["echo", f"zeroth {number}"], ["sed", "s/zeroth/first/"], ["sed", "s/first/second/"]]
    return [{"source": source, "command": command} for command in words]
