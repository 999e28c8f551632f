"""What the README and docs/api.md tell a reader to type does what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import docker
import pytest

import images
from kit.docs import BASE, ROOT, blocks
from kit.serving import Served


def run(*command: str, **env: str) -> str:
    """What it wrote. As from a reader's shell: not as part of the make that may run this test."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST_"))}
    done = subprocess.run(command, cwd=ROOT, env={**own, **env}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def left_of(engine: docker.DockerClient, job_id: str) -> list[str]:
    """Containers and volumes of a job."""
    filters: dict[str, str | list[str] | bool] = {"label": f"dray.job={job_id}"}
    return [str(thing.id) for thing in (*engine.containers.list(all=True, filters=filters), *engine.volumes.list(filters=filters))]


def test_the_two_commands_are_the_readmes_first() -> None:
    assert blocks("README.md", "bash")[0].split("\n") == ["make demo", "make test", ""]


@pytest.mark.timeout(300)
def test_make_demo_shows_a_job_and_leaves_nothing(engine: docker.DockerClient, redis: None) -> None:
    shown = run("make", "demo")
    assert '"status": "complete"' in shown
    assert shown.count("  | ") >= 40  # 30 lines of log, 10 of output
    assert "Dray is stopped" in shown
    found = re.search(r"/jobs/([0-9A-F-]{36})", shown)
    assert found
    assert left_of(engine, found[1]) == []


def test_make_test_finds_the_tests() -> None:
    found = run("make", "test", PYTEST_ADDOPTS="--collect-only -q")
    assert "test_make_test_finds_the_tests" in found


def test_the_first_five_minutes(dray: Served, engine: docker.DockerClient) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    images.ensure(engine)
    asked = [block for block in blocks("README.md", "bash") if BASE in block]
    script = "curl() { command curl --fail --noproxy '*' --max-time 60 \"$@\"; }\n" + "echo; echo @@@\n".join(asked).replace(BASE, dray.url)
    _, record, log, output, jobs, careful = run("timeout", "90", "bash", "-euo", "pipefail", "-c", script).split("@@@\n")
    assert json.loads(record)["status"] in ("running", "complete")
    assert log.count('{"lines":') == 2
    assert len(output.split()) == 10
    assert len(json.loads(jobs)) == 1
    _, end = json.JSONDecoder().raw_decode(careful)
    [left] = json.loads(careful[end:])
    assert (left["name"], left["labels"]) == ("tried again, limited in time, and tidied up after", {"team": "examples"})
    assert dray.wait(left["id"])["status"] == "complete"
    assert [job["id"] for job in dray.http.get("/jobs").json()] == [left["id"]]


def test_the_start_in_the_readme_is_the_real_one() -> None:
    start = next(block for block in blocks("README.md", "bash") if "dray serve" in block).splitlines()
    assert start == [".venv/bin/python examples/images.py", ".venv/bin/dray serve"]
    assert "--port" in run(".venv/bin/dray", "serve", "--help")


@pytest.mark.parametrize("file", ["README.md", "docs/api.md"])
def test_the_jobs_shown_run(dray: Served, engine: docker.DockerClient, file: str) -> None:
    images.ensure(engine)
    shown = [json.loads(block) for block in blocks(file, "json")]
    jobs = [job for job in shown if "steps" in job and "id" not in job]
    assert len(jobs) == 1
    record = dray.run(jobs[0])
    assert record["status"] == "complete", record
