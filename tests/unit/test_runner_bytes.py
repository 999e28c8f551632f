"""What the native runner makes of a command's bytes: output, delimiters, log, and the limits to them. Plain and sanitized."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runner_kit import BINARIES, KIB, LONG, MIB, PYTHON, Attempt, Block, Runner, build, each_build, held_up, memory_peak, text, wait_for_out

from kit.process import until

runner = each_build

HELD = 64 * KIB  # of an unfinished line, before it is logged in pieces
RESERVE = 64 * KIB  # of the log's cap, for the last lines
PIECE = 4 * KIB  # lines up to this long are never cut


# --- output

ALL_BYTES = bytes(range(256)) + b"\xc3\x28\xf0\x9f\r\n\r\n\0\n\xff"


@pytest.mark.parametrize("output", ["stdout", "stderr"])
def test_the_chosen_stream_is_the_output_byte_for_byte(runner: Runner, tmp_path: Path, output: str) -> None:
    (tmp_path / "bytes").write_bytes(ALL_BYTES)
    here, other = ("1", "2") if output == "stdout" else ("2", "1")
    attempt = runner.shell(f"cat {tmp_path}/bytes >&{here}; echo other >&{other}", output=output)
    assert attempt.out == ALL_BYTES
    assert text(attempt.log, int(here)) == ALL_BYTES
    assert text(attempt.log, int(other)) == b"other\n"


def test_a_very_long_line_passes_in_little_memory(runner: Runner) -> None:
    attempt = runner.start("sh", "-c", f"head -c {LONG} /dev/zero; while ! [ -e go ]; do sleep 0.05; done", log_cap=MIB, popen={"cwd": runner.dir})
    until(lambda: attempt.path("out").exists() and attempt.path("out").stat().st_size == LONG, 110, "all of it")
    peak = memory_peak(attempt.process.pid)
    (runner.dir / "go").touch()
    status = attempt.ended().status
    assert peak < (64 if runner.sanitized else 4) * MIB
    assert status["out"] == LONG
    assert subprocess.run(["cmp", "-n", str(LONG), str(attempt.path("out")), "/dev/zero"], check=False).returncode == 0
    found = attempt.log
    assert len(text(found, 1)) + status["left_out_bytes"] == LONG
    assert status["lines"] == 3  # the head's piece, the marker, the tail's piece
    assert status["left_out_lines"] == 0  # of the one line, something is there


def copied(runner: Runner, script: str, path: Path, **options: str | int) -> Attempt:
    return runner.shell(script, output=str(path), **options)


def test_a_file_is_the_output(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(ALL_BYTES * 5000)
    attempt = copied(runner, f"echo out; echo err >&2; cat {tmp_path}/bytes > {tmp_path}/made", tmp_path / "made", begin="out", end="no")
    assert attempt.out == ALL_BYTES * 5000
    assert (text(attempt.log, 1), text(attempt.log, 2)) == (b"out\n", b"err\n")


def test_a_file_of_another_file_system_is_the_output(runner: Runner) -> None:
    made = Path("/dev/shm") / f"dray-{os.getpid()}"
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    try:
        attempt = copied(runner, f"head -c 700000 /dev/urandom > {made}", made)
        assert attempt.out == made.read_bytes()
        assert attempt.status["out"] == 700000
    finally:
        made.unlink(missing_ok=True)


@pytest.mark.parametrize(("script", "error"), [("true", 2), ("mkdir made", 22), ("ln -s /etc/passwd made", 40), ("mkfifo made", 22), ("ln -s made made", 40)])
def test_a_file_that_is_none_fails_the_step(runner: Runner, tmp_path: Path, script: str, error: int) -> None:
    attempt = copied(runner, f"cd {tmp_path}; {script}", tmp_path / "made")
    assert [attempt.status[key] for key in ("exit", "code", "error", "errno", "out")] == [125, 0, "output_missing", error, 0]


def test_a_file_of_a_failed_step_is_not_taken(runner: Runner, tmp_path: Path) -> None:
    attempt = copied(runner, f"echo half > {tmp_path}/made; exit 4", tmp_path / "made")
    assert [attempt.status[key] for key in ("exit", "error", "out")] == [4, "", 0]


# --- delimiters


@contextmanager
def volume(binary: str) -> Iterator[Runner]:
    """A runner in a directory of its own, for tests that need many."""
    with tempfile.TemporaryDirectory(prefix="dray-") as directory, closing(Runner(build(binary), Path(directory))) as runner:
        yield runner


def lines(given: bytes) -> list[bytes]:
    """Each with its line end; the last may have none."""
    cut = [line + b"\n" for line in given.split(b"\n")]
    last = cut.pop()[:-1]
    return [*cut, last] if last else cut


def between(given: bytes, begin: bytes, end: bytes) -> bytes:
    """The loop that docs/protocol.md gives."""
    on, out = False, []
    for line in lines(given):
        bare = line.removesuffix(b"\n").removesuffix(b"\r")
        if bare == end:
            on = False
        if on:
            out.append(line)
        if bare == begin:
            on = True
    return b"".join(out)


CASES = {
    "once": b"no\nBEGIN\na\nb\nEND\nno\n",
    "twice": b"BEGIN\na\nEND\nno\nBEGIN\nb\nEND\n",
    "no end": b"BEGIN\na\nb",
    "no begin": b"a\nEND\nb\n",
    "nothing": b"",
    "carriage returns": b"BEGIN\r\na\r\nEND\r\nno\r\n",
    "two carriage returns": b"BEGIN\r\r\na\nBEGIN\nb\nEND\r\r\nc\nEND\r",
    "nearly": b" BEGIN\nBEGIN \nBEGI\nBEGINN\nbegin\nno\nBEGIN\nEN\nENDD\n END\nEND \nEND\nno\n",
    "begin again": b"BEGIN\na\nBEGIN\nb\nEND\nno\n",
    "no last line end": b"BEGIN\na\nEND",
    "begin at the very end": b"a\nBEGIN",
    "empty lines": b"\n\nBEGIN\n\n\nEND\n\n",
    "bytes": b"BEGIN\n" + ALL_BYTES + b"\nEND\n",
}


@pytest.mark.parametrize("case", CASES)
def test_only_what_is_between_the_delimiters_passes(runner: Runner, tmp_path: Path, case: str) -> None:
    (tmp_path / "given").write_bytes(CASES[case])
    attempt = runner.run("cat", str(tmp_path / "given"), begin="BEGIN", end="END")
    assert attempt.out == between(CASES[case], b"BEGIN", b"END")
    assert text(attempt.log, 1) == CASES[case]


@pytest.mark.parametrize("case", CASES)
def test_delimiters_may_be_cut_at_any_place(runner: Runner, case: str) -> None:
    plan: list[str | tuple[int, bytes]] = []
    for byte in CASES[case]:
        plan += [(1, bytes([byte])), "pause"]
    attempt = speak(runner, plan, begin="BEGIN", end="END")
    assert attempt.out == between(CASES[case], b"BEGIN", b"END")
    assert text(attempt.log, 1) == CASES[case]


def test_a_delimiter_for_both_ends_turns_on_and_on_again(runner: Runner) -> None:
    assert runner.shell("printf 'a\\n-\\nb\\n-\\nc\\n-'", begin="-", end="-").out == b"b\nc\n"


@pytest.mark.parametrize("options", [{"begin": "B"}, {"end": "B"}, {"begin": "", "end": "B"}, {"begin": "B", "end": ""}])
def test_one_delimiter_is_none(runner: Runner, options: dict[str, str]) -> None:
    assert runner.shell("printf 'a\\nB\\nb'", **options).out == b"a\nB\nb"


@pytest.mark.parametrize("size", [10 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.full)])
def test_delimiters_hold_on_lines_of_any_length(runner: Runner, size: int) -> None:
    """The long lines begin like a delimiter; the one between passes whole, the others not at all."""
    script = f"""
import os
def long(fill):
    os.write(1, b"END" if fill == b"e" else b"BEGIN")
    for _ in range({size // MIB}):
        left = memoryview(fill * {MIB})
        while left:
            left = left[os.write(1, left):]
    os.write(1, b"\\n")
for part in (b"x", b"BEGIN", b"e", b"END", b"y"):
    long(part) if len(part) == 1 else os.write(1, part + b"\\n")
"""
    attempt = runner.start(*PYTHON, script, begin="BEGIN", end="END")
    peak = 0
    while attempt.process.poll() is None:
        peak = max(peak, memory_peak(attempt.process.pid))
        time.sleep(0.01)
    attempt.ended()
    assert 0 < peak < (64 if runner.sanitized else 4) * MIB
    with attempt.path("out").open("rb") as out:
        assert out.read(3) == b"END"
        while block := out.read(min(MIB, 3 + size - out.tell())):
            assert block.count(b"e") == len(block)
        assert out.read() == b"\n"


@pytest.mark.parametrize("binary", BINARIES)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    delimiters=st.sampled_from([(b"B", b"E"), (b"B", b"B"), (b"BE", b"B"), (b"B", b"BEGINNING"), (b"B\r", b"E"), (b"B" * 300, b"E")]),
    parts=st.lists(
        st.sampled_from([b"B", b"E", b"BE", b"B" * 300, b"BEGINNING", b"\r", b"\n", b"\n", b"\r\n", b"x", b"x" * 299, b"y" * 70000, "pause"]), max_size=60
    ),
)
def test_delimiters_hold_however_the_reads_fall(binary: str, delimiters: tuple[bytes, bytes], parts: list[bytes | str]) -> None:
    with volume(binary) as runner:
        given_bytes = b"".join(part for part in parts if isinstance(part, bytes))
        begin, end = delimiters
        attempt = speak(runner, [part if isinstance(part, str) else (1, part) for part in parts], begin=begin.decode(), end=end.decode())
        assert attempt.out == between(given_bytes, begin, end)
        assert text(attempt.log, 1) == given_bytes


# --- the log


def test_blocks_hold_the_lines_of_a_stream_as_they_were_written(runner: Runner) -> None:
    before = time.time_ns() // 1000
    attempt = runner.shell("printf 'one\\ntwo\\n'; sleep 0.2; printf 'thr' >&2; sleep 0.1; printf 'ee\\nfour' >&2; sleep 0.2; printf 'five\\n'")
    found = attempt.log
    assert [(block.stream, block.lines, block.payload) for block in found] == [(1, 2, b"one\ntwo\n"), (2, 1, b"three\n"), (1, 1, b"five\n"), (2, 1, b"four")]
    times = [block.time for block in found]
    assert before <= times[0] <= times[1] - 250_000 <= times[2] - 400_000
    assert times == sorted(times)
    assert attempt.status["lines"] == 5


def test_a_line_is_in_the_log_at_once_and_its_start_is_not(runner: Runner) -> None:
    attempt = runner.start("sh", "-c", "printf 'whole\\nhalf'; exec sleep 60")
    wait_for_out(attempt, lambda out: out == b"whole\nhalf")
    until(lambda: [block.payload for block in attempt.log] == [b"whole\n"], 5, "the line in the log")
    attempt.process.terminate()
    assert text(attempt.ended().log, 1) == b"whole\nhalf"


@pytest.mark.parametrize("size", [HELD - 1, HELD, HELD + 1, 3 * HELD, 5 * MIB + 3])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_long_line_goes_in_pieces_and_is_closed(runner: Runner, size: int, ending: str) -> None:
    attempt = runner.shell(f"head -c {size} /dev/zero; sleep 0.1; printf '{ending}'; echo end >&2")
    found = [block for block in attempt.log if block.stream == 1]
    assert text(found, 1) == bytes(size) + ending.encode()
    assert sum(block.lines for block in found) == 1
    assert [block.open for block in found] == [True] * (len(found) - 1) + [False]
    assert (len(found) > 1) == (size > HELD)


def test_many_short_lines_written_at_odd_places_are_all_there(runner: Runner) -> None:
    script = """
import itertools, os, time
left = b"".join(b"%d\\n" % number for number in range(10000))
for size in itertools.cycle((1, 2, 3, 7, 1, 61, 4099, 13)):
    os.write(1, left[:size]), os.write(2, left[:size][::-1])
    left = left[size:]
    if not left:
        break
"""
    attempt = runner.python(script)
    expected = b"".join(b"%d\n" % number for number in range(10000))
    found = attempt.log
    assert attempt.out == text(found, 1) == expected
    assert sum(block.lines for block in found if block.stream == 1) == 10000
    assert sorted(text(found, 2)) == sorted(expected)
    assert all(block.payload.endswith(b"\n") for block in found[:-2])


# --- the log's cap


def parts(found: list[Block]) -> tuple[list[Block], list[Block]]:
    """The blocks before the marker and those after it."""
    markers = [number for number, block in enumerate(found) if block.stream == 0]
    if not markers:
        return found, []
    assert len(markers) == 1
    return found[: markers[0]], found[markers[0] + 1 :]


def hold_cap(attempt: Attempt, written: dict[int, bytes], cap: int) -> None:
    """What docs/protocol.md says of a log and its cap, held against what the command wrote."""
    found, status = attempt.log, attempt.status
    head, tail = parts(found)
    left_bytes = left_lines = 0
    for stream, whole in written.items():
        first, last = text(head, stream), text(tail, stream)
        if len(head) == len(found):
            assert first == whole
            continue
        assert whole.startswith(first)
        assert whole.endswith(last)
        start, stop = len(first), len(whole) - len(last)
        assert start <= stop
        left_bytes += stop - start
        at = 0
        for line in lines(whole):
            end = at + len(line)
            left_lines += start <= at and end <= stop
            assert at >= start or end <= start or len(line) > HELD, "a line cut by the border is one that came in pieces"
            assert at >= stop or end <= stop or start == stop or len(line) > PIECE or at < start, "a line cut by the tail is a long one"
            at = end
    assert [status["left_out_bytes"], status["left_out_lines"]] == [left_bytes, left_lines]
    marker = b"dray: %d lines, %d bytes left out here, the log's cap is reached\n" % (left_lines, left_bytes)
    assert text(found, 0) == (marker if left_bytes else b"")
    assert status["log"] <= max(cap, RESERVE)
    assert [block.time for block in found] == sorted(block.time for block in found)


def test_a_log_within_its_cap_is_whole(runner: Runner) -> None:
    attempt = runner.shell("seq 100000", log_cap=MIB)
    assert text(attempt.log, 1) == attempt.out
    assert [attempt.status[key] for key in ("lines", "left_out_lines", "left_out_bytes")] == [100000, 0, 0]


@pytest.mark.parametrize("cap", [0, 10 * KIB, 64 * KIB, 65 * KIB, 100 * KIB, 600 * KIB, MIB])
def test_of_a_log_past_its_cap_the_first_and_the_last_lines_are_there(runner: Runner, cap: int) -> None:
    attempt = runner.shell("seq 1000000", log_cap=cap)
    hold_cap(attempt, {1: attempt.out}, cap)
    head, tail = parts(attempt.log)
    assert attempt.status["left_out_bytes"] > 5 * MIB
    assert len(text(tail, 1)) > RESERVE - 2 * PIECE
    assert sum(24 + len(block.payload) for block in head) >= min(cap - RESERVE - PIECE, cap // 2)


@pytest.mark.parametrize("length", [10, 1000, PIECE, PIECE + 1, 20_000])
def test_more_lines_in_one_read_than_the_tail_holds(runner: Runner, length: int) -> None:
    written = b"".join(b"%d" % number + b"." * (length - 7) + b"\n" for number in range(100_000, 100_000 + 900 * KIB // length))
    (runner.dir / "given").write_bytes(written)
    attempt = runner.start("sh", "-c", "while ! [ -e go ]; do sleep 0.01; done; cat given; touch done", log_cap=100 * KIB, popen={"cwd": runner.dir})
    until(lambda: attempt.path("log").exists(), 10, "the start")
    time.sleep(0.1)
    with held_up(attempt):
        (runner.dir / "go").touch()
        until((runner.dir / "done").exists, 10, "all of it in the pipe")
    attempt.ended()
    hold_cap(attempt, {1: written, 2: b""}, 100 * KIB)
    assert attempt.out == written
    assert len(text(parts(attempt.log)[1], 1)) > RESERVE - 2 * PIECE - length % (5 * PIECE)


def test_lines_that_still_fit_the_tail_are_not_left_out(runner: Runner) -> None:
    """Past the border, but no further than the tail reaches: nothing lacks, and nothing is said to."""
    attempt = runner.shell("seq 1000; sleep 0.1; printf last", log_cap=0)
    hold_cap(attempt, {1: attempt.out, 2: b""}, 0)
    assert text(attempt.log, 1).endswith(b"\n1000\nlast")
    assert attempt.status["left_out_bytes"] == 0


def test_a_line_that_crosses_the_border_within_the_tail_stays_one(runner: Runner) -> None:
    script = "import os, time; os.write(1, b'x' * 100_000); time.sleep(0.2); os.write(1, b'y' * 50_000 + b'\\nend\\n')"
    attempt = runner.python(script, log_cap=RESERVE + 130_000)
    hold_cap(attempt, {1: attempt.out}, RESERVE + 130_000)
    assert (attempt.status["lines"], attempt.status["left_out_bytes"]) == (2, 0)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_whose_end_is_left_out_is_closed_and_not_counted(runner: Runner, end: bytes) -> None:
    """Its start is in the log; of the lines after it, and of a long one without an end, what the tail cannot hold is left out."""
    plan: list[str | tuple[int, bytes]] = [(1, b"x" * 100_000), "pause", (1, b"y" * 50_000 + b"\n"), "pause"]
    plan += [(2, b"e" * 100_000), "pause", (1, b"%d\n" * 20_000), (1, b"z" * 200_000 + end)]
    attempt = speak(runner, plan, log_cap=RESERVE + 130_000)
    hold_cap(attempt, {1: attempt.out, 2: b"e" * 100_000}, RESERVE + 130_000)
    head, tail = parts(attempt.log)
    assert text(head, 1) == b"x" * 100_000
    assert [(block.open, block.lines, block.payload) for block in head][-1] == (False, 1, b"")
    assert set(text(tail, 1)) == set(b"z" + end)
    assert attempt.status["left_out_lines"] == 20_001  # and stderr's


def test_other_logs_of_the_job_count(runner: Runner) -> None:
    (runner.dir / "7.1.log").write_bytes(bytes(300 * KIB))
    attempt = runner.shell("seq 1000000", log_cap=500 * KIB)
    hold_cap(attempt, {1: attempt.out}, 200 * KIB)
    assert attempt.status["log"] > 190 * KIB


def test_a_log_of_two_streams_is_capped_as_one(runner: Runner) -> None:
    script = """
import os, time
for n in range(40001):
    if n == 40000:
        time.sleep(0.3)
    os.write(1, b"%d out\\n" % n), os.write(2, b"%d err\\n" % n)
"""
    attempt = runner.python(script, log_cap=200 * KIB)
    hold_cap(attempt, {1: attempt.out, 2: attempt.out.replace(b"out", b"err")}, 200 * KIB)
    tail = parts(attempt.log)[1]
    assert text(tail, 1).endswith(b"40000 out\n")
    assert text(tail, 2).endswith(b"40000 err\n")


def test_the_other_streams_last_words_are_not_drowned_in_order(runner: Runner) -> None:
    """First in, first out: what stderr said long before the end gives way to what came after it on stdout."""
    attempt = runner.shell("seq 100000; echo early >&2; sleep 0.2; seq 100000; sleep 0.2; echo late >&2", log_cap=0)
    assert text(attempt.log, 2) == b"late\n"
    hold_cap(attempt, {1: attempt.out, 2: b"early\nlate\n"}, 0)


SPEAK = """
import array, fcntl, os, sys, termios, time
for word in open(sys.argv[1]):
    if word == "pause\\n":
        unread = array.array("i", [1])
        while any(fcntl.ioctl(fd, termios.FIONREAD, unread) or unread[0] for fd in (1, 2)):
            time.sleep(0)
        continue
    fd, size, start, end = word.split(" ")
    left = (bytes.fromhex(start) * (int(size) // max(1, len(start) // 2) + 1))[:int(size)] + bytes.fromhex(end)
    while left:
        left = left[os.write(int(fd), left):]
"""


def speak(runner: Runner, plan: list[str | tuple[int, bytes]], **options: str | int) -> Attempt:
    """A command that writes these, in order: (1 or 2, bytes), or "pause": until all so far has been read."""
    script = ["pause" if isinstance(part, str) else f"{part[0]} {len(part[1])} {part[1].hex()} " for part in plan]
    (runner.dir / "plan").write_text("".join(line + "\n" for line in script))
    return runner.python(SPEAK, str(runner.dir / "plan"), **options)


@st.composite
def plans(draw: st.DrawFn) -> list[str | tuple[int, bytes]]:
    """Lines and pieces of lines whose lengths lie about the runner's borders; each has other bytes."""
    lengths = st.sampled_from([0, 1, 3, 10, 100, PIECE - 1, PIECE, PIECE + 1, HELD - 1, HELD, HELD + 1, 3 * HELD, 300_000])
    found: list[str | tuple[int, bytes]] = []
    for number, (stream, length, end) in enumerate(
        draw(st.lists(st.tuples(st.sampled_from([1, 2]), lengths, st.sampled_from(["", "\n", "\n", "lines"])), max_size=25))
    ):
        filler = (b"%d." % number) * (length // 2 + 1)
        if end == "lines":
            filler = (b"%d\n" % number) * (length // 2 + 1)
        found.append((stream, filler[:length] + end.replace("lines", "").encode()))
        if draw(st.booleans()):
            found.append("pause")
    return found


@pytest.mark.parametrize("binary", BINARIES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=plans(), cap=st.sampled_from([0, RESERVE, RESERVE + 23, RESERVE + 24, RESERVE + 30, RESERVE + 5000, 2 * RESERVE, 4 * RESERVE, 16 * MIB]))
def test_log_and_output_are_the_bytes_that_were_written(binary: str, plan: list[str | tuple[int, bytes]], cap: int) -> None:
    with volume(binary) as runner:
        attempt = speak(runner, plan, log_cap=cap)
        written = {stream: b"".join(part[1] for part in plan if not isinstance(part, str) and part[0] == stream) for stream in (1, 2)}
        assert attempt.out == written[1]
        hold_cap(attempt, written, cap)
        if cap == 16 * MIB:
            assert attempt.status["lines"] == sum(len(lines(whole)) for whole in written.values())


# --- limits of the disk


@pytest.fixture
def small_disk(runner: Runner) -> Iterator[Runner]:
    """The volume is a disk of 24 MiB."""
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(runner.dir)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting is for root")
    yield runner
    subprocess.run(["umount", str(runner.dir)], check=True)


@pytest.mark.parametrize("command", ["cat /dev/zero", "yes", "yes >&2", "seq 10000000 | tee /dev/stderr"])
def test_a_full_disk_fails_the_step(small_disk: Runner, command: str) -> None:
    attempt = small_disk.shell(command, log_cap=1024 * MIB)
    assert [attempt.status[key] for key in ("exit", "error", "errno")] == [125, "write", 28]
    assert attempt.status["out"] + attempt.status["log"] > 20 * MIB


def test_a_disk_that_fills_up_for_a_file_output_fails_the_step(small_disk: Runner, tmp_path: Path) -> None:
    attempt = small_disk.shell(f"head -c {25 * MIB} /dev/zero > {tmp_path}/made", output=f"{tmp_path}/made")
    assert [attempt.status[key] for key in ("exit", "code", "error", "errno")] == [125, 0, "write", 28]


def test_a_disk_full_from_the_start_runs_nothing(small_disk: Runner, tmp_path: Path) -> None:
    (small_disk.dir / "else").write_bytes(b"")
    subprocess.run(["sh", "-c", f"cat /dev/zero > {small_disk.dir}/else"], stderr=subprocess.DEVNULL, check=False)
    attempt = small_disk.start("touch", str(tmp_path / "ran"), popen={"stderr": subprocess.DEVNULL})
    assert attempt.wait() == 125
    assert not attempt.path("status").exists()
    assert not (tmp_path / "ran").exists()


def test_the_floor_of_free_space_is_kept(small_disk: Runner) -> None:
    attempt = small_disk.shell("cat /dev/zero", floor=10 * MIB, log_cap=0)
    assert [attempt.status[key] for key in ("exit", "signal", "error", "errno")] == [125, 9, "disk_floor", 0]
    assert 14 * MIB < attempt.status["out"] < 18 * MIB


def test_below_the_floor_nothing_runs(runner: Runner, tmp_path: Path) -> None:
    attempt = runner.run("touch", str(tmp_path / "ran"), floor=10**17)
    assert [attempt.status[key] for key in ("exit", "code", "error")] == [125, -1, "disk_floor"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("stream", [1, 2])
def test_a_write_that_fails_fails_the_step(runner: Runner, stream: int) -> None:
    """By a limit on the size of a file: for the output, and for the log alone."""
    attempt = runner.shell(f"cat /dev/zero >&{stream}", popen={"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))})
    assert [attempt.status[key] for key in ("exit", "signal", "error", "errno")] == [125, 9, "write", 27]
    assert attempt.path("out" if stream == 1 else "log").stat().st_size > MIB - 512 * KIB


@pytest.mark.parametrize(("size", "cap", "error"), [(1000, 1000, ""), (1001, 1000, "data_limit"), (0, 0, ""), (5000, 0, ""), (64 * MIB, 3 * MIB, "data_limit")])
@pytest.mark.parametrize("kind", ["stream", "file", "delimited"])
def test_the_cap_on_data_is_exact(runner: Runner, tmp_path: Path, size: int, cap: int, error: str, kind: str) -> None:
    options: dict[str, str | int] = {"output": str(tmp_path / "made")} if kind == "file" else {"begin": "b", "end": "e"} if kind == "delimited" else {}
    redirect = f" > {tmp_path}/made" if kind == "file" else ""
    attempt = runner.shell(f"{'echo b;' if kind == 'delimited' else ''} head -c {size} /dev/zero{redirect}", data_cap=cap, **options)
    assert (attempt.status["error"], attempt.status["exit"]) == (error, 125 if error else 0)
    assert attempt.status["out"] <= cap if error else attempt.status["out"] == size


def test_other_outputs_of_the_job_count(runner: Runner) -> None:
    (runner.dir / "6.1.out").write_bytes(bytes(600))
    assert runner.shell("head -c 400 /dev/zero", data_cap=1000).status["error"] == ""
    assert runner.shell("head -c 1 /dev/zero", data_cap=1000, step=1).status["error"] == "data_limit"


def test_a_job_past_its_cap_on_data_runs_nothing_more(runner: Runner, tmp_path: Path) -> None:
    (runner.dir / "6.1.out").write_bytes(bytes(1001))
    attempt = runner.run("touch", str(tmp_path / "ran"), data_cap=1000)
    assert [attempt.status[key] for key in ("exit", "code", "error")] == [125, -1, "data_limit"]
    assert not (tmp_path / "ran").exists()


def test_a_step_past_its_cap_is_stopped_and_its_log_kept(runner: Runner) -> None:
    attempt = runner.shell("echo why >&2; sleep 0.2; yes", data_cap=MIB)
    assert [attempt.status[key] for key in ("exit", "signal", "error")] == [125, 9, "data_limit"]
    assert text(attempt.log, 2) == b"why\n"
