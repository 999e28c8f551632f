"""The native runner's SHA-256: against hashlib, by the processor's instructions and in plain C; and the gate that asks for it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import resource
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runner_kit import KIB, MIB, SOURCE, Runner, each_build, said_of

runner = each_build

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
Hash = Callable[[Sequence[bytes]], str]


@pytest.fixture(scope="module", params=["native", "portable"])
def sha256(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hash:
    """sha256.c as a library: the digest of some pieces."""
    made = tmp_path_factory.mktemp("sha256") / "sha256.so"
    portable = ["-DSHA256_PORTABLE"] if request.param == "portable" else []
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", *portable, "-o", str(made), str(SOURCE / "sha256.c")], check=True)
    library = ctypes.CDLL(str(made))

    def digest(pieces: Sequence[bytes]) -> str:
        state, found = ctypes.create_string_buffer(256), ctypes.create_string_buffer(65)
        library.sha256_start(state)
        for piece in pieces:
            library.sha256_add(state, piece, ctypes.c_size_t(len(piece)))
        library.sha256_finish(state, found)
        return found.value.decode()

    return digest


SIZES = [*range(200), *(around + by for around in (256, 512, 1024, 4 * KIB, 64 * KIB, 256 * KIB, MIB) for by in (-65, -64, -9, -8, -1, 0, 1, 63))]


def test_every_size_is_hashed_as_by_hashlib(sha256: Hash) -> None:
    whole = random.Random(1).randbytes(MIB + 64)
    assert {size: sha256([whole[:size]]) for size in SIZES} == {size: hashlib.sha256(whole[:size]).hexdigest() for size in SIZES}


@settings(deadline=None)
@given(pieces=st.lists(st.binary(max_size=200), max_size=20))
def test_pieces_are_hashed_as_the_whole(sha256: Hash, pieces: list[bytes]) -> None:
    assert sha256(pieces) == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_a_large_input_is_hashed(sha256: Hash) -> None:
    """More bits than 32 can count."""
    piece = os.urandom(64 * MIB)
    expected = hashlib.sha256()
    for _ in range(9):
        expected.update(piece)
    assert sha256([piece] * 9) == expected.hexdigest()


# --- in the status


@pytest.mark.parametrize("script", ["", "printf x", "head -c 300000 /dev/urandom", "echo out >&2"])
def test_the_status_tells_the_hash_of_the_output(runner: Runner, script: str) -> None:
    attempt = runner.shell(script)
    assert attempt.status["sha256"] == hashlib.sha256(attempt.out).hexdigest()


@pytest.mark.parametrize("output", ["file", "none", "delimited"])
def test_the_hash_is_that_of_the_file_whatever_it_was_made_from(runner: Runner, tmp_path: Path, output: str) -> None:
    options = {"file": {"output": str(tmp_path / "made")}, "none": {"output": "none"}, "delimited": {"begin": "1", "end": "99999"}}[output]
    attempt = runner.shell("seq 100000 | tee made", popen={"cwd": tmp_path}, **options)
    assert (attempt.out == b"") == (output == "none")
    assert attempt.status["sha256"] == hashlib.sha256(attempt.out).hexdigest()


def test_a_large_output_is_hashed_piece_by_piece(runner: Runner) -> None:
    """Large and small ones by turns. That the status is right is held of every attempt that ends."""
    attempt = runner.shell(f"head -c {40 * MIB + 12345} /dev/urandom; echo more; sleep 0.1; echo and more; cat /dev/zero | head -c {9 * MIB}")
    assert attempt.status["out"] > 49 * MIB


def test_where_no_thread_can_be_had_an_output_is_hashed_without(runner: Runner, tmp_path: Path) -> None:
    """There is no room for its stack."""
    if runner.sanitized:
        pytest.skip("the sanitizers take more memory than that")

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (64 * MIB, 64 * MIB))
        resource.setrlimit(resource.RLIMIT_AS, (32 * MIB, 32 * MIB))

    made = tmp_path / "made"
    attempt = runner.shell(f"head -c {10 * MIB} /dev/urandom > {made}", output=str(made), popen={"preexec_fn": little_memory})
    assert attempt.status["out"] == 10 * MIB


# --- at the gate


def spoil(runner: Runner, boot: str) -> None:
    """An input of the right size with a wrong byte, said to be of that boot."""
    runner.before(b"whole", verdict=None)
    (runner.dir / "0.1.status").write_text(said_of(b"whole", boot=boot))
    (runner.dir / "0.1.out").write_bytes(b"wh\0le")
    runner.judge("ok 1\n")


@pytest.mark.parametrize("boot", ["", "00000000-0000-0000-0000-000000000000"])
def test_an_input_of_another_boot_is_proved(runner: Runner, tmp_path: Path, boot: str) -> None:
    spoil(runner, boot)
    attempt = runner.run("touch", str(tmp_path / "ran"), step=1)
    assert [attempt.status[key] for key in ("exit", "code", "error", "errno")] == [125, -1, "input", 0]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [0, 1, 3 * MIB + 1])
@pytest.mark.parametrize("boot", ["", "another"])
def test_an_input_that_is_proved_is_read_whole(runner: Runner, boot: str, size: int) -> None:
    whole = os.urandom(size)
    runner.before(whole, verdict=None)
    (runner.dir / "0.1.status").write_text(said_of(whole, boot=boot))
    runner.judge("ok 1\n")
    assert runner.run("cat", step=1).out == whole


def test_an_input_of_this_boot_is_not_read_twice(runner: Runner) -> None:
    spoil(runner, BOOT)
    assert runner.run("cat", step=1).out == b"wh\0le"


@pytest.mark.parametrize("status", ['{"out":5,"log":0}\n', '{"out":5,"log":0,"sha256":"","boot":""}\n', '{"out":5,"sha256":"' + "0" * 500 + '"}\n'])
def test_an_input_that_nobody_vouches_for_is_refused(runner: Runner, status: str) -> None:
    spoil(runner, "")
    (runner.dir / "0.1.out").write_bytes(b"whole")
    (runner.dir / "0.1.status").write_text(status)
    assert runner.run("true", step=1).status["error"] == "input"


def test_a_stop_while_an_input_is_proved_leaves_no_claim(runner: Runner) -> None:
    runner.before(bytes(64 * MIB))
    attempt = runner.start("true", step=1)
    (runner.dir / "stop").write_text("cancelled\n")
    assert attempt.wait(10) == 0 or attempt.path("claim").exists()
