"""What docs/client.md shows is what happens when it is typed."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dray.client import config
from kit.dray import DRAY, environment
from kit.images import Images
from kit.serving import Served

DOCS = Path(__file__).parents[2] / "docs"
AN_ID = "51E0E756-A6B4-9CC7-67BD-364970C2268C"
LOG = b"GET / 200\nGET /no 404\nGET /none 404\n"


def blocks(language: str = "", file: str = "client.md") -> list[str]:
    """The fenced blocks of a language; those without one are a shell's, or what a command says."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / file).read_text(), re.MULTILINE | re.DOTALL)
    return [block for kind, block in found if kind == language]


def the_block(part: str, file: str = "client.md") -> str:
    [found] = [block for block in blocks(file=file) if part in block]
    return found


class Reader:
    """Types what a block shows, in a folder with the files that it names; images are ones that are at hand."""

    def __init__(self, dray: Served, image: Images, folder: Path) -> None:
        self.dray, self.folder = dray, folder
        self._busybox = image("true")
        self._env = environment() | {"PATH": f"{Path(DRAY).parent}:{os.environ['PATH']}", "DRAY_SERVER": dray.url, "XDG_CONFIG_HOME": str(folder)}
        job = {"steps": [{"source": image("cat")}, {"source": image("wc", "-c")}]}
        for name in ("job.json", "job.yaml"):
            (folder / name).write_text(json.dumps(job))
        (folder / "in").write_bytes(b"12345")
        (folder / "input").write_bytes(b"1234567")
        (folder / "access.log.gz").write_bytes(gzip.compress(LOG))

    def types(self, block: str, code: int = 0) -> str:
        """What it prints."""
        script = re.sub(r"\balpine\b|registry\.example:5000/tools:1\.2", self._busybox, block).replace("http://127.0.0.1:3000", self.dray.url)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert done.returncode == code, f"{script}\n{done.stderr.decode()}"
        return done.stdout.decode()


@pytest.fixture
def reader(dray: Served, image: Images, tmp_path: Path) -> Reader:
    return Reader(dray, image, tmp_path)


def test_every_block_is_held_by_a_test_here() -> None:
    """But for those marked bash, and those that need a cluster."""
    held = ("registry.example", "<in >out", "--local", "$ dray reproduce", "ok   engine")
    mine = [block for block in blocks() if "kubectl" not in block]
    assert [next((part for part in held if part in block), block) for block in mine] == list(held)
    assert len(blocks("toml")) == 1


def test_a_step_from_the_command_line(reader: Reader) -> None:
    reader.types(the_block("registry.example"), code=3)


def test_a_filter(reader: Reader) -> None:
    assert reader.types(the_block("<in >out")) == "2\n"
    assert (reader.folder / "out").read_text() == "5\n"


def test_a_filter_with_curl(reader: Reader) -> None:
    """docs/api.md has it."""
    reader.types(the_block("/filter >output", "api.md").replace("curl", "curl --noproxy '*'"))
    assert (reader.folder / "output").read_text() == "7\n"


def test_without_a_server(reader: Reader) -> None:
    assert reader.types(the_block("--local")) == "9\n"


def test_how_a_step_is_repeated(reader: Reader, image: Images) -> None:
    typed, *shown = the_block("$ dray reproduce").splitlines()
    steps = [{"source": image("seq", "9")}, {"source": image("true"), "command": ["wc", "-l"], "environment": [{"variable": "REGION", "value": "us-west-2a"}]}]
    job_id = reader.dray.post({"steps": steps})
    reader.dray.wait(job_id)
    printed = reader.types(typed.removeprefix("$ ").replace(AN_ID, job_id))
    fetch, run = printed.splitlines()
    assert fetch == shown[0].replace(AN_ID, job_id)
    begin, end = shown[1].split("…")
    assert run.startswith(begin)
    assert run.endswith(end[-len(f" <{AN_ID}-2.in") :].replace(AN_ID, job_id))
    assert reader.types(printed) == "9\n"


def test_what_doctor_looks_at(reader: Reader) -> None:
    def things(text: str) -> list[str]:
        return [line.split()[1] for line in text.splitlines()]

    assert things(reader.types("dray doctor || true")) == things(the_block("ok   engine"))


def test_the_configuration_file(tmp_path: Path) -> None:
    [shown] = blocks("toml")
    written: dict[str, Any] = tomllib.loads(shown)
    (tmp_path / "dray").mkdir()
    file = tmp_path / "dray" / "config.toml"
    file.write_text(shown.replace(written["token"], "a-token-of-some-length"))
    file.chmod(0o600)
    found = config.find({"XDG_CONFIG_HOME": str(tmp_path)})
    assert (found.server, found.token, found.warning) == (written["server"], "a-token-of-some-length", None)
