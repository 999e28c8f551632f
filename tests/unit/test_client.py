"""The client's parts that ask nobody: safe text, configuration, the job from a file or from steps, exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dray.client import config, jobfile, watch
from dray.client.errors import Failed
from dray.client.text import safe, shown
from dray.errors import BadSetting

# --- text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ä 漢字 👩‍👩‍👧\there", "plain, ä 漢字 👩‍👩‍👧\there"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07", "\\u001b]0;title\\u0007"),
        ("\x1b[2J", "\\u001b[2J"),
        ("\x9b2J", "\\u009b2J"),
        ("50%\r100%", "50%\\u000d100%"),
        ("a\nb", "a\\u000ab"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("\x1b\x1b[0m[2J", "\\u001b[2J"),
    ],
)
def test_text_is_shown_without_what_a_terminal_obeys(text: str, expected: str) -> None:
    assert safe(text) == expected


@given(st.text())
def test_safe_text_stays_as_it_is(text: str) -> None:
    once = safe(text)
    assert safe(once) == once
    assert not any((char < " " and char != "\t") or "\x7f" <= char < "\xa0" for char in once)


def test_text_is_left_alone_where_no_terminal_is() -> None:
    assert shown("\x1b[2J\u202e", io.StringIO()) == "\x1b[2J\u202e"


# --- configuration


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nowhere"}


def keep(environment: dict[str, str], text: str, mode: int = 0o600) -> None:
    path = config.file(environment)
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(mode)


def test_without_anything_it_is_this_machine(environment: dict[str, str]) -> None:
    assert config.find(environment) == config.Connection("http://127.0.0.1:3000", None)


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(environment: dict[str, str]) -> None:
    keep(environment, 'server = "http://file:1"\ntoken = "of-the-file"\n')
    assert config.find(environment) == config.Connection("http://file:1", "of-the-file")
    environment |= {"DRAY_SERVER": "https://environment/", "DRAY_TOKEN": "of-the-environment"}
    assert config.find(environment) == config.Connection("https://environment", "of-the-environment")
    assert config.find(environment, "http://given", "given") == config.Connection("http://given", "given")


def test_the_files_token_goes_to_no_other_server(environment: dict[str, str]) -> None:
    keep(environment, 'server = "http://file:1"\ntoken = "of-the-file"\n')
    assert config.find(environment, "http://other:1").token is None
    assert config.find(environment, "http://file:1/").token == "of-the-file"


def test_a_token_that_others_can_read_is_warned_of(environment: dict[str, str]) -> None:
    keep(environment, 'token = "of-the-file"\n', 0o644)
    warning = config.find(environment).warning
    assert warning is not None
    assert "chmod 600" in warning


def test_without_xdg_the_file_is_under_home(environment: dict[str, str]) -> None:
    assert config.file({"HOME": "/home/me"}) == Path("/home/me/.config/dray/config.toml")
    assert config.file({"HOME": "/home/me", "XDG_CONFIG_HOME": "relative"}) == Path("/home/me/.config/dray/config.toml")


@pytest.mark.parametrize("text", ["server = 1", "sever = 'http://x'", "server", 'token = ""', 'server = "ftp://x"', 'token = "two words"', "\xff"])
def test_a_file_that_cannot_be_used_is_named(environment: dict[str, str], text: str) -> None:
    keep(environment, "")
    config.file(environment).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadSetting):
        config.find(environment)


@pytest.mark.parametrize("server", ["localhost:3000", "http://", "http://x:99999", "http://x?y", "http://x/#y", "http://a b", "http://[::1", "http://x\n"])
def test_a_server_that_is_none_is_refused(environment: dict[str, str], server: str) -> None:
    with pytest.raises(BadSetting, match="http://127"):
        config.find(environment, server)


def test_a_password_in_a_url_is_refused_and_not_repeated(environment: dict[str, str]) -> None:
    with pytest.raises(BadSetting) as error:
        config.find(environment, "http://me:hunter2@x")
    assert "hunter2" not in str(error.value)


# --- steps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", {"source": "alpine"}),
        ("registry:5000/team/app:1.2@sha256:00 ls", {"source": "registry:5000/team/app:1.2@sha256:00", "command": ["ls"]}),
        ("alpine sh -c 'echo \"a  b\"; exit 3'", {"source": "alpine", "command": ["sh", "-c", 'echo "a  b"; exit 3']}),
        ("alpine echo $HOME # all", {"source": "alpine", "command": ["echo", "$HOME", "#", "all"]}),
    ],
)
def test_a_step_is_an_image_and_a_command_split_as_a_shell_does(text: str, expected: dict[str, Any]) -> None:
    assert jobfile.step(text) == expected


@pytest.mark.parametrize("text", ["", "  ", "alpine 'open", "alpine \\"])
def test_a_step_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Failed, match="--step"):
        jobfile.step(text)


def test_either_a_file_or_steps() -> None:
    assert json.loads(jobfile.read(None, ["a b", "c"])) == {"steps": [{"source": "a", "command": ["b"]}, {"source": "c"}]}
    for file, steps in ((None, []), ("x", ["a"])):
        with pytest.raises(Failed, match="either"):
            jobfile.read(file, steps)


# --- files


def read(folder: Path, name: str, content: str) -> Any:
    (folder / name).write_text(content)
    return json.loads(jobfile.read(str(folder / name), []))


def test_yaml_has_jsons_types(tmp_path: Path) -> None:
    text = "a: no\nb: 2016-06-10\nc: 010\nd: true\ne: 1\nf: 1.5\ng: ~\nh:\ni: 0x1f\nj: 1_000\nk: on\nl: 12:30\nm: .nan\nn: 1e3\n"
    assert read(tmp_path, "job.yaml", text) == {
        "a": "no",
        "b": "2016-06-10",
        "c": "010",
        "d": True,
        "e": 1,
        "f": 1.5,
        "g": None,
        "h": None,
        "i": "0x1f",
        "j": "1_000",
        "k": "on",
        "l": "12:30",
        "m": ".nan",
        "n": 1000.0,
    }


def test_the_name_tells_the_form_else_the_look(tmp_path: Path) -> None:
    job = {"steps": [{"source": "a"}]}
    assert read(tmp_path, "job", "steps: [{source: a}]") == job
    assert read(tmp_path, "job.txt", json.dumps(job, indent=2)) == job
    assert read(tmp_path, "job.yml", json.dumps(job)) == job


def test_json_is_sent_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(b'{"steps": [\xff')
    assert jobfile.read(str(tmp_path / "job.json"), []) == b'{"steps": [\xff'


def test_stdin_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"name: x")))
    assert json.loads(jobfile.read("-", [])) == {"name": "x"}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: [", "line 1"),
        ("a: 1\nb: c: d\n", "line 2, column 5"),
        ("a: &x [1]\nb: *x\n", "line 2"),
        ("a: !!python/object:os.system {}", "line 1"),
        ("a: !!set {b}", "no job"),
        ("? [a]\n: b\n", "line 1"),
        ("a: \x01", "no job"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("a: !!int x", "no job"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4, column 3: c is given twice"),
        (" \n", r"job\.yaml is empty"),
    ],
)
def test_yaml_that_is_no_job_is_refused_with_the_place(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(Failed, match=where):
        read(tmp_path, "job.yaml", text)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(Failed, match=r"/nowhere/job\.json: No such file"):
        jobfile.read("/nowhere/job.json", [])


# --- the end of a run


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"status": "complete"}, 0),
        ({"status": "error", "reason": "exit_code", "failedStep": 2}, 3),
        ({"status": "error", "reason": "out_of_memory", "failedStep": 2}, 3),
        ({"status": "error", "reason": "image_not_found", "failedStep": 1}, 126),
        ({"status": "error", "reason": "input_damaged", "failedStep": 3}, 126),
        ({"status": "error", "reason": "image_not_allowed"}, 126),
        ({"status": "error", "reason": "timed_out", "failedStep": 2}, 124),
        ({"status": "error", "reason": "cancelled", "failedStep": 2}, 130),
    ],
)
def test_the_exit_code_tells_how_the_job_ended(record: dict[str, Any], code: int) -> None:
    assert watch.exit_code({**record, "steps": [{"exitCode": None}, {"exitCode": 3}, {"exitCode": 0}]}) == code
