"""What the guides tell a reader to type does what they say. test_readme.py has the README's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import docker
import pytest

import images
from kit.docs import BASE, ROOT, blocks
from kit.dray import DRAY, environment
from kit.images import Images
from kit.process import until
from kit.serving import Served

MARK = "echo; echo @@@"  # between what the blocks write
CURL = 'curl() { command curl --fail --noproxy "*" --max-time 60 "$@"; }'


def type_in(dray: Served, file: str, folder: Path) -> list[str]:
    """What each bash block of the file wrote, on stdout and stderr, all of them typed into one shell."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = "\n".join([CURL, *(block + MARK for block in blocks(file, "bash"))]).replace(BASE, dray.url)
    env = {**environment(), "PATH": f"{Path(DRAY).parent}:{os.environ['PATH']}", "DRAY_SERVER": dray.url, "COLUMNS": "200", "XDG_CONFIG_HOME": str(folder)}
    command = ["timeout", "100", "bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout.split("@@@\n")[:-1]


def test_the_first_job(dray: Served, engine: docker.DockerClient, tmp_path: Path) -> None:
    images.ensure(engine)
    one, four, careful, failing, found, again, http, _ = type_in(dray, "docs/first-job.md", tmp_path)
    assert one.count("Jones") >= 3
    assert "8" in four.split()
    assert "the server is busy" in careful
    assert "the job is complete" in careful
    assert careful.split()[-1] == "8"
    assert "no room on the shelf" in failing
    assert failing.strip().endswith("exit code 3")
    assert "exit code 3" in found
    rerun = dray.wait(again.split()[0])
    assert (rerun["status"], rerun["failedStep"]) == ("error", 2)
    _, end = json.JSONDecoder().raw_decode(http)
    listed = json.loads(http[end:])
    assert [job["name"] for job in listed] == ["customers", "customers"]
    assert dray.http.get(f"/jobs/{rerun['rerunOf']}").status_code == 404
    dray.wait(listed[0]["id"])


def test_the_commands_of_the_client(dray: Served, engine: docker.DockerClient, tmp_path: Path) -> None:
    images.ensure(engine)
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    [shown] = type_in(dray, "docs/client.md", tmp_path)
    assert (tmp_path / "result").read_text() == "8\n"
    assert "customers | sort | uniq | wc -l" in shown
    assert {dray.wait(job["id"])["status"] for job in dray.http.get("/jobs").json()} == {"complete"}


def test_an_old_client_goes_on(dray: Served, engine: docker.DockerClient, tmp_path: Path) -> None:
    images.ensure(engine)
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    [shown] = type_in(dray, "docs/migration.md", tmp_path)
    assert '"status":"' in shown
    assert '{"lines":' in shown
    assert dray.http.get("/jobs").json() == []


def test_a_copy_of_the_data_directory_is_a_backup(dray: Served, image: Images) -> None:
    """As docs/operations.md says it: stopped, copied, started again; and put back later."""
    large = {"steps": [{"source": image.shell("head -c 300000 /dev/zero; echo logged >&2")}]}
    kept = dray.run(large)
    slow = dray.post({"steps": [{"source": image.shell("echo began; sleep 6; echo ended")}]})
    until(lambda: dray.log(slow) == ["began"], 30, "the step runs")
    assert dray.stop() == 0
    copy = dray.dir / "copy"
    shutil.copytree(dray.data_dir, copy, ignore=shutil.ignore_patterns("*.sock"))
    dray.start()
    assert dray.wait(slow)["status"] == "complete"
    assert dray.log(slow) == ["began", "ended"]
    later = dray.run(large)
    assert dray.stop() == 0
    shutil.rmtree(dray.data_dir)
    copy.rename(dray.data_dir)
    dray.start()
    assert dray.output(kept["id"]) == bytes(300000)
    assert "logged" in dray.log(kept["id"])
    assert dray.wait(slow)["reason"] == "lost"
    assert dray.http.get(f"/jobs/{later['id']}").status_code == 404
