"""How the runner comes into a pod, where that does not go at once."""

from __future__ import annotations

from collections.abc import Callable

import docker

from kit.built import RUNNER
from kit.clustered import Clustered
from kit.images import Images
from kit.kubernetes import JobNamespace
from kit.nodes import NodeImages
from kit.process import until
from kit.registry import Registry


def test_a_pod_that_came_up_without_the_runner_is_made_anew(
    engine: docker.DockerClient, registry: Callable[[], Registry], image: Images, node_images: NodeImages, job_namespace: JobNamespace
) -> None:
    own, source = registry(), node_images.of(image("echo", "hello"))
    ours = own.push(RUNNER, "runner")
    own.kill()
    dray = Clustered(engine, job_namespace, ours, [], {})
    try:
        job_id = dray.post({"steps": [{"source": source}]})
        until(lambda: any("initContainers" in pod["spec"] for pod in dray.pods(job_id)), 60, "it has a second pod, which waits")
        own.start()
        record = dray.wait(job_id, 90)
        assert (record["status"], record["steps"][0]["attempt"], dray.output(job_id)) == ("complete", 1, b"hello\n")
    finally:
        dray.close()
