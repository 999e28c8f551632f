"""`make demo`: starts Dray, posts word-job.json, follows its log, shows record and output, and puts everything away again."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import docker

import images

HERE = Path(__file__).parent
READY_WITHIN, REMOVED_WITHIN = 60, 20  # seconds


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="dray-demo-"))
    try:
        make_images()
        with serving(folder) as url:
            run(url, HERE / "word-job.json")
    except Exception as error:  # noqa: BLE001 (whatever it was, show the log that tells why)
        log = folder / "dray.log"
        print(f"\nThe demo failed: {error}", log.read_text()[-4000:] if log.exists() else "", sep="\n", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    say("done", "Dray is stopped and its data removed; the example images stay")
    return 0


def make_images() -> None:
    engine = docker.from_env()
    try:
        done = list(images.ensure(engine).values())
    finally:
        engine.close()
    say("images", ", ".join(f"{done.count(how)} {how}" for how in sorted(set(done))))


def run(url: str, file: Path) -> None:
    """Each request a client makes, in its order."""
    job = json.loads(request("POST", f"{url}/jobs", file.read_bytes()))
    job_id = job["id"]
    say("post", f"{file.name}: {' | '.join(step['source'] for step in job['steps'])}")
    say("log", f"GET /jobs/{job_id}/log, as it comes:")
    record = follow(f"{url}/jobs/{job_id}")
    say("record", f"GET /jobs/{job_id}")
    show(json.dumps(record, indent=2))
    say("output", f"GET /jobs/{job_id}/output, what the last step passed on:")
    show(request("GET", f"{url}/jobs/{job_id}/output").decode())
    request("DELETE", f"{url}/jobs/{job_id}")
    say("delete", f"DELETE /jobs/{job_id}")
    wait_until_removed(job_id)


def follow(job_url: str) -> dict[str, object]:
    """Prints log lines until the job has ended; its record."""
    seen = 0
    while True:
        record: dict[str, object] = json.loads(request("GET", job_url))
        lines = json.loads(request("GET", f"{job_url}/log?index={seen}"))["lines"]
        show("\n".join(lines))
        seen += len(lines)
        if record["status"] != "running":
            return record
        time.sleep(0.1)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of a `dray serve` that runs until the block ends."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    dray = Path(sys.executable).parent / "dray"
    with (folder / "dray.log").open("wb") as log:
        process = subprocess.Popen([dray, "serve", "--port", str(port), "--data-dir", folder / "data"], stdout=log, stderr=log)
    try:
        wait_until_ready(url, process)
        say("serve", f"dray serve --port {port} is ready")
        yield url
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        try:
            request("GET", f"{url}/readyz")
            return
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError("dray serve did not become ready")


def wait_until_removed(job_id: str) -> None:
    """Dray removes a job's containers and volume behind the scenes, a moment after its end."""
    label: dict[str, str | list[str] | bool] = {"label": [f"dray.job={job_id}"]}
    engine, deadline = docker.from_env(), time.monotonic() + REMOVED_WITHIN
    try:
        while engine.containers.list(all=True, filters=label, ignore_removed=True) or engine.volumes.list(filters=label):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the engine still holds something of job {job_id}")
            time.sleep(0.1)
    finally:
        engine.close()


def request(method: str, url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=30) as answer:
        content: bytes = answer.read()
        return content


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def say(step: str, what: str) -> None:
    print(f"{step:>8}  {what}", flush=True)


def show(text: str) -> None:
    for line in text.splitlines():
        print(f"{'':8}  | {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
