"""Engines that are not at the end of the local socket."""

from __future__ import annotations

from collections.abc import Callable

from kit.dockerd import Dockerd
from kit.images import Images
from kit.serving import Served


def test_an_engine_over_tcp_with_tls(own_dockerd: Callable[..., Dockerd], serve: Callable[..., Served]) -> None:
    dockerd = own_dockerd(tls=True)
    image = Images(dockerd.engine)
    dray = serve(DOCKER_HOST=dockerd.tcp, DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(dockerd.certificates), DRAY_DISK_FLOOR="0")
    dray.engine = dockerd.engine
    job_id = dray.post({"steps": [{"source": image("head", "-c", "3000000", "/dev/zero")}, {"source": image("wc", "-c")}]})
    record = dray.wait(job_id)
    assert record["status"] == "complete", record
    assert dray.output(job_id).strip() == b"3000000"
