"""What docs/kubernetes.md tells a reader to type does what it says, in a namespace that is the reader's current one."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

import images
from kit.docs import ROOT, blocks
from kit.dray import DRAY, environment
from kit.kubernetes import Namespace, kubeconfig
from kit.process import until
from kit.serving import Served

FILE = "docs/kubernetes.md"
WORDS = "examples/drayjob-words.yaml"


class Reader:
    """Types what a block shows, in a folder with the files that it names."""

    def __init__(self, team: Namespace, dray: Served, folder: Path) -> None:
        self.folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "job.yaml").write_text("name: from a file\nsteps:\n- source: examples/customers\n- source: examples/count\n")
        own = folder / "kubeconfig"
        own.write_text(json.dumps(_at(team.name)))
        path = f"{Path(DRAY).parent}:{os.environ['PATH']}"
        self._env = environment() | {"PATH": path, "KUBECONFIG": str(own), "DRAY_SERVER": dray.url, "XDG_CONFIG_HOME": str(folder)}

    def types(self, block: str) -> str:
        """What it prints."""
        command = ["timeout", "100", "bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(command, cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def _at(namespace: str) -> dict[str, Any]:
    """The tests' own kubeconfig, with this namespace as the current one."""
    found = kubeconfig()
    found["contexts"][0]["context"]["namespace"] = namespace
    return found


def the_block(part: str) -> str:
    [found] = [block for block in blocks(FILE, "") if part in block]
    return found


@pytest.fixture
def dray(team: Namespace, redis: None, engine: docker.DockerClient) -> Iterator[Served]:
    images.ensure(engine)
    served = Served(engine, ["--kubernetes", "--namespaces", team.name], {"KUBECONFIG": str(team.kubeconfig)})
    yield served
    served.close()


@pytest.fixture
def reader(team: Namespace, dray: Served, tmp_path: Path) -> Reader:
    return Reader(team, dray, tmp_path)


def test_every_block_of_commands_is_held_by_a_test() -> None:
    """Here; those that turn it on by what the tests themselves do: `require_drayjobs`, `Namespace` and `Served`."""
    held = ("apply -f examples/", "dray operator --kubernetes ", "kubectl patch", "kubectl dray run", "dray operator --backend kubernetes")
    commands = [block for block in blocks(FILE, "") if "─" not in block]
    assert [next((part for part in held if part in block), block) for block in commands] == list(held)


def test_the_job_that_is_shown_is_the_example() -> None:
    shown = blocks(FILE, "yaml")[0]
    assert shown in (ROOT / WORDS).read_text()


def test_a_drayjobs_life(reader: Reader, team: Namespace) -> None:
    typed = the_block("apply -f examples/")
    assert " -w\n" in typed  # goes on until Ctrl-C
    told = reader.types(typed.replace(" -w\n", "\n"))
    for part in ("drayjob.dray.io/words created", "condition met", "Kind:         DrayJob", '"words" deleted'):
        assert part in told
    assert "words" not in team.all()


def test_kubectl_dray(reader: Reader, dray: Served) -> None:
    reader.types(f"kubectl apply -f {WORDS}")
    told = reader.types(the_block("kubectl dray run"))
    assert told.split()[0] == "12"  # customers
    job_id = reader.types("kubectl get drayjob words -o 'jsonpath={.status.jobID}'")
    assert (reader.folder / "words.txt").read_bytes() == dray.output(job_id)
    reader.types("kubectl dray rm words")


def test_an_object_whose_operator_is_gone_is_let_go(reader: Reader, team: Namespace, dray: Served) -> None:
    name = team.apply("left", "examples/customers")
    team.wait(name)
    dray.kill()
    team.delete(name, wait=False)
    assert name in team.all()
    reader.types(the_block("kubectl patch").replace("NAME", name))
    until(lambda: name not in team.all(), 30, "it is gone")
