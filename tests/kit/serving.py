"""A real `dray serve`: started, asked over HTTP, killed, started again on the same data, and looked after at the end."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError
from redis import Redis

from kit.dray import DRAY, answers, client, environment
from kit.process import Process, free_port, until, wait_ready

READY_WITHIN = 60
_LOG_TAIL = 200  # lines shown with a failed test


class Served:
    """One data directory and port; `start` runs a process on it. `env` is added to this process's, None takes a variable away."""

    clean_within = 20  # seconds

    def __init__(self, engine: docker.DockerClient, args: Sequence[str] = (), env: Mapping[str, str | None] | None = None) -> None:
        self.engine = engine
        self.dir = Path(tempfile.mkdtemp(prefix="dray-serve-"))
        self.data_dir = self.dir / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._args, self._env = list(args), _environment(env or {})
        self.http = client(self.url, self._env.get("DRAY_TOKEN"), timeout=30)
        self.instance: str | None = None
        self._pods: dict[str, str] = {}  # by job, as seen on the engine
        try:
            self.start()
        except BaseException:
            self._remove()
            raise

    # --- the process

    def start(self, **env: str) -> None:
        """Returns when it is ready. `env` is added to its environment, also of the next ones."""
        self._env |= env
        command = [DRAY, "serve", "--port", str(self.port), "--data-dir", str(self.data_dir), *self._args]
        self.process = Process(command, self.dir / "output.log", self._env)
        wait_ready(self.process, lambda: answers(self.http), READY_WITHIN, "dray serve")
        until(lambda: bool(self._instance()), READY_WITHIN, "its operator has begun, under the name of its Redis")
        self.instance = self._instance()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.process.kill()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        return self.process.stop()

    @property
    def running(self) -> bool:
        return self.process.code is None

    # --- the API

    def post(self, job: Mapping[str, Any] | str | bytes) -> str:
        """Its id. A text or bytes go as they are."""
        sent = {"content": job} if isinstance(job, str | bytes) else {"json": job}
        answer = self.http.post("/jobs", **sent)
        assert answer.status_code == 201, f"{answer.status_code} {answer.text}"
        return str(answer.json()["id"])

    def record(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/jobs/{job_id}").raise_for_status().json()
        return found

    def wait(self, job_id: str, within: float = 60) -> dict[str, Any]:
        """Its record once the job has ended."""
        deadline = time.monotonic() + within
        while (record := self.record(job_id))["status"] == "running":
            assert time.monotonic() < deadline, f"job still running after {within} s: {record}"
            time.sleep(0.02)
        return record

    def run(self, job: Mapping[str, Any] | str | bytes, within: float = 60) -> dict[str, Any]:
        """The record of a job posted and waited for."""
        return self.wait(self.post(job), within)

    def log(self, job_id: str, index: int = 0) -> list[str]:
        lines: list[str] = self.http.get(f"/jobs/{job_id}/log", params={"index": index}).raise_for_status().json()["lines"]
        return lines

    def output(self, job_id: str) -> bytes:
        return self.http.get(f"/jobs/{job_id}/output").raise_for_status().content

    # --- what it has on the engine

    def containers(self, job_id: str | None = None) -> list[Any]:
        """All of this instance, or of one job of it: its boxes, and what is of their pod."""
        found: list[Any] = self.engine.containers.list(all=True, filters=self._mine, ignore_removed=True)
        for container in found:
            if "dray.job" in container.labels:
                self._pods[container.labels["dray.job"]] = container.labels["dray.pod"]
        return [container for container in found if job_id is None or container.labels.get("dray.pod") == self._pods.get(job_id, "")]

    def volumes(self, job_id: str | None = None) -> list[Any]:
        """The same, of a job's pod that `containers` has shown."""
        found: list[Any] = self.engine.volumes.list(filters=self._mine)
        return [volume for volume in found if job_id is None or volume.name == self._pods[job_id]]

    # --- the end

    def close(self) -> None:
        """Stops it, and prints its log for pytest to show with a failed test. Raises AssertionError where it leaves anything behind.

        One that the test itself ended may leave what it likes.
        """
        was_running = self.running
        try:
            if was_running:
                until(lambda: not self._of_jobs(), self.clean_within, f"nothing of a job is left: {self._of_jobs()}")
                assert self.stop() == 0
                assert not self._left(), f"left behind: {self._left()}"
        finally:
            print(f"--- dray serve, port {self.port}", *self.process.output.splitlines()[-_LOG_TAIL:], sep="\n")
            self._remove()

    def _remove(self) -> None:
        self.process.kill()
        self.http.close()
        shutil.rmtree(self.dir)
        for container in self.containers() if self.instance else ():
            with suppress(APIError):  # gone, or going
                container.remove(force=True, v=True)
        for volume in self.volumes() if self.instance else ():
            volume.remove(force=True)

    def _left(self) -> list[str]:
        return [thing.name for thing in (*self.containers(), *self.volumes())]

    def _of_jobs(self) -> list[str]:
        """What is a job's: a job is done a moment before the engine has removed all of it."""
        containers = [container.name for container in self.containers() if "dray.job" in container.labels]
        return containers + [volume.name for volume in self.volumes() if "dray.job" in volume.attrs["Labels"]]

    @property
    def _mine(self) -> dict[str, str | list[str] | bool]:
        return {"label": f"dray.instance={self.instance}"}

    def _instance(self) -> str:
        url = self._env.get("REDIS_URL") or f"unix://{self.data_dir}/redis/redis.sock"
        with Redis.from_url(url) as redis:
            found = redis.get("dray:instance")
        return found.decode() if isinstance(found, bytes) else ""


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    merged: dict[str, str | None] = {**environment(), "LOG_LEVEL": "debug", **changes}
    return {name: value for name, value in merged.items() if value is not None}
