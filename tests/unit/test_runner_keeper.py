"""The native runner's keeper, and what it does once: install, kill. Plain and sanitized."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runner_kit import MIB, Attempt, Runner, as_first, at_home, each_build, memory_peak, processes, step_words, wait_for_out

from dray.runner import RUNNER, order
from kit.process import until

runner = each_build
first = as_first
home = at_home

# --- the keeper


def waits(pid: int) -> bool:
    return processes().get(pid, (0, ""))[1] == "S"


def test_a_keeper_ends_well_when_its_time_has_come(runner: Runner) -> None:
    keeper = runner.execute("keeper", "--seconds", "1")
    until(lambda: waits(keeper.pid), 10, "it waits")
    assert keeper.wait(10) == 0


def test_no_signal_ends_a_keeper(runner: Runner) -> None:
    keeper = runner.execute("keeper", "--seconds", "1000000000000")
    until(lambda: waits(keeper.pid), 10, "it waits")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR1, signal.SIGPIPE):
        keeper.send_signal(number)
    time.sleep(0.2)
    assert keeper.poll() is None
    assert waits(keeper.pid)


def test_a_keeper_reaps_what_comes_to_it(runner: Runner, first: tuple[str, ...]) -> None:
    keeper = runner.execute("keeper", "--seconds", "60", through=(*first, "sh", "-c", '(sleep 0.4 &); (sleep 0.2 &); exec "$0" "$@"'))
    inner = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")
    until(lambda: bool(inner.read_text()), 10, "the keeper")
    pid = int(inner.read_text())
    until(lambda: Path(f"/proc/{pid}/comm").read_text().startswith("dray-runner"), 10, "the keeper")
    until(lambda: not any(parent == pid for parent, _ in processes().values()), 5, "orphans gone")


def test_a_keeper_is_small(runner: Runner) -> None:
    if runner.sanitized:
        pytest.skip("sanitizers take memory of their own")
    keeper = runner.execute("keeper", "--seconds", "60")
    until(lambda: waits(keeper.pid), 10, "it waits")
    assert memory_peak(keeper.pid) < MIB


@pytest.mark.parametrize("words", [["keeper"], ["keeper", "--seconds"], ["keeper", "--seconds", "x"], ["install"], ["install", "d", "--dir"], ["kill", "now"]])
def test_a_wrong_command_line_does_nothing(runner: Runner, words: list[str]) -> None:
    done = subprocess.run([str(runner.binary), *words], capture_output=True, check=False, cwd=runner.dir)
    assert (done.returncode, done.stderr[:7]) == (125, b"usage: ")
    assert runner.files == set()


# --- install


def install(runner: Runner, *words: str, **popen: Any) -> int:
    return runner.execute("install", *words, **popen).wait(10)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_program_installs_itself(runner: Runner, tmp_path: Path, umask: int) -> None:
    place = runner.dir / "dray-runner"
    for _ in range(2):
        assert install(runner, str(runner.dir), umask=umask) == 0
        assert runner.files == {"dray-runner"}
        assert (place.stat().st_mode & 0o7777, place.read_bytes()) == (0o755, runner.binary.read_bytes())
    done = subprocess.run([place, "install", str(tmp_path)], check=False)
    assert (done.returncode, (tmp_path / "dray-runner").read_bytes()) == (0, place.read_bytes())


def test_files_for_outputs_are_laid_empty_and_open_to_all_and_stay_as_they_are(runner: Runner, tmp_path: Path) -> None:
    volume = tmp_path / "outputs"
    volume.mkdir()
    for content in ("", "written"):
        done = subprocess.run([runner.binary, "install", str(runner.dir), "--dir", str(volume), "--files", "2"], check=False, umask=0o077)
        assert done.returncode == 0
        files = {path.name: (path.stat().st_mode & 0o7777, path.read_text()) for path in volume.iterdir()}
        assert files == {".0.file": (0o666, ""), ".1.file": (0o666, content)}
        (volume / ".1.file").write_text("written")


def test_what_is_there_is_replaced_while_it_runs(runner: Runner) -> None:
    place = runner.dir / "dray-runner"
    assert install(runner, str(runner.dir)) == 0
    with subprocess.Popen([place, "keeper", "--seconds", "60"]) as running:
        before = place.stat().st_ino
        assert install(runner, str(runner.dir)) == 0
        assert place.stat().st_ino != before
        assert running.poll() is None
        running.kill()


@pytest.mark.parametrize(("mode", "expected"), [(0o755, 0o1777), (0o777, 0o1777), (0o2775, 0o3777)])
def test_the_volume_is_opened_to_every_user(runner: Runner, tmp_path: Path, mode: int, expected: int) -> None:
    volume = tmp_path / "root"
    volume.mkdir()
    volume.chmod(mode)
    assert install(runner, str(runner.dir), "--dir", str(volume)) == 0
    assert volume.stat().st_mode & 0o7777 == expected


@pytest.mark.parametrize(("mode", "code"), [(0o777, 0), (0o755, 125)])
def test_the_volume_of_another_owner_must_be_open_to_all(runner: Runner, mode: int, code: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("being another user is for root")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        volume, program = Path(place) / "volume", Path(place) / "program"
        volume.mkdir()
        volume.chmod(mode)
        shutil.copy(runner.binary, program)
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", str(program), "install", place, "--dir", str(volume)]
        done = subprocess.run(command, capture_output=True, check=False)
        assert (done.returncode, volume.stat().st_mode & 0o7777) == (code, mode)
        assert (b"volume: Operation not permitted" in done.stderr) == (code != 0)


def away(directory: Path) -> None:
    directory.rmdir()


def a_directory_in_its_place(directory: Path) -> None:
    (directory / "dray-runner" / "x").mkdir(parents=True)


@pytest.mark.parametrize("spoil", [away, a_directory_in_its_place])
def test_what_cannot_be_installed_is_told_and_leaves_nothing(runner: Runner, spoil: Callable[[Path], None]) -> None:
    spoil(runner.dir)
    done = subprocess.run([runner.binary, "install", str(runner.dir)], capture_output=True, check=False)
    assert (done.returncode, str(runner.dir).encode() in done.stderr) == (125, True)
    assert not runner.dir.exists() or runner.files == {"dray-runner"}


# --- kill: only ever in a namespace of the test's own


DEAF = "trap '' TERM; setsid sleep 66 & echo here; while :; do sleep 0.02; done"


def test_a_kill_ends_what_runs_in_a_container(runner: Runner, home: tuple[str, ...]) -> None:
    """The first process there is a step, which sees its command end."""
    attempt = runner.start("sh", "-c", f"(sleep 0.2; exec {runner.binary} kill) & {DEAF}", through=home, retries=1).ended(10, judged=False)
    assert (attempt.status["signal"], attempt.status["error"]) == (9, "")


def test_a_kill_ends_a_box_that_does_not_heed_a_stop(runner: Runner, home: tuple[str, ...]) -> None:
    box = runner.execute("box", "--dir", str(runner.dir), "--step", "0", through=home)
    command = ["sh", "-c", f"(sleep 0.2; exec {runner.binary} kill) & {DEAF}"]
    runner.lay("0.1.launch", order({}, [RUNNER, "step", *step_words(*command, retries=3)]))
    wait_for_out(Attempt(box, runner.dir, 0, 1), lambda out: out == b"here\n")
    assert box.wait(10) == 137


def test_nothing_is_killed_where_others_live(runner: Runner, home: tuple[str, ...]) -> None:
    script = 'sleep 67 & "$0" kill 2>&1; echo $?; kill -0 $! && echo alive'
    done = subprocess.run([*home, "sh", "-c", script, str(runner.binary)], capture_output=True, check=True)
    assert done.stdout.split(b"\n", 1)[1] == b"125\nalive\n"
