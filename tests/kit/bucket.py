"""A real S3 server on this machine, with one bucket: versitygw, which keeps objects as the files of a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from kit.process import Process, free_port, wait_ready

PROGRAM = "versitygw"
KEY, SECRET = "AKDRAYTEST", "sixteen-characters"
NAME = "outputs"


def require() -> None:
    """Skips where there is no such server."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"{PROGRAM}, an S3 server, is not installed (go install github.com/versity/versitygw/cmd/versitygw@v1.8.0)")


class Bucket:
    """Runs from the start. `environment` leads a Dray to it."""

    def __init__(self) -> None:
        require()
        self.dir = Path(tempfile.mkdtemp(prefix="dray-bucket-"))
        self.folder = self.dir / "buckets" / NAME
        for folder in (self.folder, self.dir / "metadata"):
            folder.mkdir(parents=True)
        self.url = f"s3://{NAME}/dray"
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.start()

    def start(self) -> None:
        given = ["--access", KEY, "--secret", SECRET, "--port", self.address, "--health", "/health"]
        command = [PROGRAM, *given, "posix", "--sidecar", str(self.dir / "metadata"), str(self.folder.parent)]
        self.process = Process(command, self.dir / "output.log")
        wait_ready(self.process, self._answers, 30, PROGRAM)

    def objects(self) -> dict[str, bytes]:
        """By their keys. What was uploaded in part is none."""
        found = {}
        for folder, _, names in os.walk(self.folder):
            for file in (Path(folder, name) for name in names):
                with suppress(FileNotFoundError):  # it may go meanwhile, as folders may
                    found[str(file.relative_to(self.folder))] = file.read_bytes()
        return {key: content for key, content in found.items() if not key.startswith(".")}

    def kill(self) -> None:
        self.process.kill()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.dir)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://{self.address}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False
