"""`kubectl dray` as a user types it, against a real cluster and a real `dray serve --kubernetes`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from kit.dray import environment
from kit.images import Images
from kit.kubernetes import Namespace
from kit.process import until
from kit.serving import Served

Done = subprocess.CompletedProcess[bytes]


class User:
    """Someone with kubectl, who may do in the namespace what an admin may."""

    def __init__(self, team: Namespace, dray: Served, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._env = environment() | {"PATH": path, "DRAY_SERVER": dray.url, "XDG_CONFIG_HOME": str(folder)}
        self._team = team
        self._begun: list[subprocess.Popen[bytes]] = []

    def begins(self, verb: str, *words: str) -> subprocess.Popen[bytes]:
        command = ["kubectl", "dray", verb, "-n", self._team.name, *words]
        process = subprocess.Popen(command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._begun.append(process)
        return process

    def leaves(self) -> None:
        """What was begun ends."""
        for process in self._begun:
            process.kill()
            process.communicate()

    def types(self, verb: str, *words: str, stdin: bytes = b"", code: int = 0) -> Done:
        """What came of it; it must end with this exit code."""
        process = self.begins(verb, *words)
        out, err = process.communicate(stdin, timeout=100)
        assert process.returncode == code, f"{verb} {words} ended with {process.returncode}\n{out!r}\n{err.decode()}"
        assert b"Traceback" not in err
        return Done(words, process.returncode, out, err)

    def says(self, verb: str, *words: str, stdin: bytes = b"") -> str:
        return self.types(verb, *words, stdin=stdin).stdout.decode()


@pytest.fixture(scope="module")
def dray(team: Namespace, redis: None, engine: docker.DockerClient) -> Iterator[Served]:
    served = Served(engine, ["--kubernetes", "--namespaces", team.name], {"KUBECONFIG": str(team.kubeconfig)})
    yield served
    served.close()


@pytest.fixture
def user(team: Namespace, dray: Served, tmp_path: Path) -> Iterator[User]:
    someone = User(team, dray, tmp_path)
    yield someone
    someone.leaves()


def begun(team: Namespace, dray: Served) -> str:
    """The name of the one that runs, once its step has written something."""

    def running() -> list[tuple[str, dict[str, Any]]]:
        return [(name, status) for name, status in team.all().items() if status.get("status") == "running"]

    until(lambda: bool(running()) and bool(dray.log(running()[0][1]["jobID"])), 60, "its step runs")
    return running()[0][0]


def test_run_waits_and_passes_the_output_on(user: User, image: Images) -> None:
    job = {"name": "Two words", "steps": [{"name": "first", "source": image.shell("printf 'a\\0\\377'; echo beside >&2")}, {"source": image("cat")}]}
    done = user.types("run", "-", stdin=json.dumps(job).encode())
    assert done.stdout == b"a\0\xff"
    told = done.stderr.decode()
    assert told.startswith("drayjob.dray.io/two-words-")
    assert "1 | beside\n" in told
    assert "step 1 (first): complete" in told


def test_run_ends_as_the_step_that_failed_and_shows_the_object(user: User, image: Images) -> None:
    done = user.types("run", "--step", f"{image('true')} sh -c 'echo gone wrong >&2; exit 37'", "-o", "json", code=37)
    seen = json.loads(done.stdout)
    assert (seen["kind"], seen["status"]["reason"]) == ("DrayJob", "ExitCode")
    shown = user.says("get", seen["metadata"]["name"])
    for part in ("status: error", "exit code 37", "stderr: gone wrong"):
        assert part in shown
    assert user.says("logs", seen["metadata"]["name"]) == "gone wrong\n"


def test_what_the_cluster_refuses_is_told(user: User, image: Images) -> None:
    told = user.types("run", "-", stdin=b'{"steps": [{"source": "alpine", "sauce": "soy"}]}', code=125).stderr.decode()
    assert "sauce" in told
    assert "steps" in user.types("submit", "-", stdin=b'{"steps": []}', code=1).stderr.decode()


def test_ctrl_c_cancels_the_job(user: User, team: Namespace, dray: Served, image: Images) -> None:
    process = user.begins("run", "--step", f"{image('true')} sh -c 'echo begun; sleep 60'")
    name = begun(team, dray)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b""), err.decode()
    assert team.wait(name, "Failed")["reason"] == "Cancelled"


def test_a_drayjobs_life_by_hand(user: User, team: Namespace, dray: Served, image: Images) -> None:
    submitted = user.says("submit", "--step", f"{image('true')} sh -c 'echo begun; sleep 60'", "--step", f"{image('true')} cat").strip()
    name = begun(team, dray)
    assert submitted == f"drayjob.dray.io/{name}"
    assert name in user.says("ls", "--status", "running")
    follower = user.begins("logs", "-f", submitted)
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"begun\n"
    assert "is being stopped" in user.types("cancel", submitted).stderr.decode()
    follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert team.wait(name, "Failed")["reason"] == "Cancelled"
    assert name not in user.says("ls", "--status", "running", "-o", "name")
    again = user.says("rerun", name).strip().partition("/")[2]
    assert team.get(again)["spec"] == team.get(name)["spec"]
    user.types("rm", submitted, f"drayjob/{again}")
    until(lambda: not {name, again} & set(team.all()), 60, "both are gone")
    assert b"there is no DrayJob" in user.types("get", name, code=1).stderr


def test_a_manifest_is_run_and_its_outputs_are_fetched(user: User, team: Namespace, image: Images, tmp_path: Path) -> None:
    manifest = {"apiVersion": "dray.io/v1alpha1", "kind": "DrayJob", "metadata": {"name": "sorted", "labels": {"team": "a"}}}
    steps = [{"source": image("printf", "b\\na\\n")}, {"source": image("sort")}]
    (tmp_path / "job.json").write_text(json.dumps(manifest | {"spec": {"steps": steps}}))
    assert user.says("run", str(tmp_path / "job.json")) == "a\nb\n"
    assert user.says("output", "sorted") == "a\nb\n"
    assert user.says("output", "sorted", "--step", "1") == "b\na\n"
    assert user.says("ls", "-l", "team=a", "-o", "name") == "drayjob.dray.io/sorted\n"
    assert b"exists already" in user.types("submit", str(tmp_path / "job.json"), code=1).stderr


def test_doctor_finds_all_well(user: User) -> None:
    assert [line.split()[:2] for line in user.says("doctor").splitlines()] == [
        ["ok", name] for name in ("cluster", "DrayJobs", "permissions", "server", "token")
    ]
