"""The native runner's mask: no secret in the log, however its bytes come; every byte of it in the output. Plain and sanitized."""

from __future__ import annotations

import os
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runner_kit import BINARIES, KIB, MIB, PYTHON, Attempt, Runner, each_build, text
from test_runner_bytes import speak, volume

from kit.process import until

runner = each_build

SHORTEST = 4  # bytes of a line of a value that counts on its own


def secrets(values: list[bytes]) -> list[bytes]:
    found = []
    for value in values:
        bare = value.rstrip(b"\r\n")
        found += [bare] if bare else []
        if b"\n" in bare:
            found += [line for line in (line.removesuffix(b"\r") for line in bare.split(b"\n")) if len(line) >= SHORTEST]
    return found


def masked(given_bytes: bytes, values: list[bytes]) -> bytes:
    """Every byte of every secret, wherever one stands, but for line ends."""
    result = bytearray(given_bytes)
    for secret in secrets(values):
        at = given_bytes.find(secret)
        while at >= 0:
            result[at : at + len(secret)] = re.sub(rb"\r\n|\n|([^\n])", lambda found: b"*" if found[1] else found[0], secret)
            at = given_bytes.find(secret, at + 1)
    return bytes(result)


def environment(values: list[bytes]) -> dict[str, bytes | str]:
    return {"PATH": os.environ["PATH"]} | {f"SECRET{number}": value for number, value in enumerate(values)}


def said(runner: Runner, values: list[bytes], plan: list[str | tuple[int, bytes]], **options: object) -> Attempt:
    """A command that writes as planned and has these secrets."""
    names = [f"SECRET{number}" for number in range(len(values))]
    return speak(runner, plan, mask=names, popen={"env": environment(values)}, **options)  # type: ignore[arg-type]


CASES = {
    "once": ([b"hunter2"], b"the password is hunter2.\n"),
    "many": ([b"hunter2"], b"hunter2hunter2 hunter hunter2\nhunter2"),
    "short": ([b"x"], b"a x xx\nx"),
    "one within another": ([b"abcabc", b"bcab"], b"abcab abcabc xbcabx\n"),
    "overlapping itself": ([b"aabaa"], b"aabaabaa aabaaabaa aaabaaa\n"),
    "all the same": ([b"aaaa"], b"aaa aaaa aaaaa aaaaaaaaa\n"),
    "lines": ([b"first\nsecond\nlast1"], b"first\nsecond\nlast1\n"),
    "a line alone": ([b"first\nsecond\nab\nlast1"], b"a second try; ab is no line of it; last1, first and\n"),
    "a carriage return": ([b"first\r\nsecond\r\n"], b"first\nsecond\r\nfirst\r\nsecond\r\n"),
    "an end of line": ([b"abc\n"], b"abc\nabc abc"),
    "empty": ([b"", b"\n\n"], b"nothing\n\n\nat all\n"),
    "bytes": ([b"\xff\xfe\x80*"], b"\0\xff\xfe\x80*\n\xff\xfe\xff\xfe\x80*"),
    "nearly": ([b"secretsecrex"], b"secretsecretsecrexsecretsecre\nsecretsecre"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_secret_is_masked_in_the_log_and_not_in_the_output(runner: Runner, case: str) -> None:
    values, written = CASES[case]
    attempt = said(runner, values, [(1, written), "pause", (2, written)])
    assert attempt.out == written
    assert [text(attempt.log, stream) for stream in (1, 2)] == [masked(written, values)] * 2


@pytest.mark.parametrize("case", CASES)
def test_a_secret_is_masked_wherever_it_is_cut(runner: Runner, case: str) -> None:
    values, written = CASES[case]
    plan: list[str | tuple[int, bytes]] = []
    for byte in written:
        plan += [(1, bytes([byte])), "pause"]
    attempt = said(runner, values, plan)
    assert attempt.out == written
    assert text(attempt.log, 1) == masked(written, values)


def test_a_value_of_short_lines_is_not_there_whole(runner: Runner) -> None:
    """Its first line is complete, and so in the log, before the next tells that it was a secret's."""
    values, written = [b"ab\ncd\nef"], b"ab\ncd\nef\n"
    assert text(said(runner, values, [(1, written)]).log, 1) == b"**\n**\n**\n"
    for path in runner.dir.iterdir():
        path.unlink()
    plan: list[str | tuple[int, bytes]] = [(1, b"ab\n"), "pause", (1, b"cd\n"), "pause", (1, b"ef\n")]
    log = text(said(runner, values, plan).log, 1)
    assert len(log) == len(written)
    assert log.endswith(b"**\n")


def test_a_variable_that_is_not_set_masks_nothing(runner: Runner) -> None:
    assert text(runner.shell("echo something", mask=["NO_SUCH_VARIABLE"]).log, 1) == b"something\n"


def test_the_command_has_the_secret(runner: Runner) -> None:
    attempt = runner.shell("echo $TOKEN; echo $TOKEN >&2", mask=["TOKEN", "PATH"], popen={"env": {"PATH": os.environ["PATH"], "TOKEN": "abc def"}})
    assert attempt.out == b"abc def\n"
    assert text(attempt.log, 1) == text(attempt.log, 2) == b"*******\n"


def test_streams_are_masked_each_for_itself(runner: Runner) -> None:
    plan: list[str | tuple[int, bytes]] = [(1, b"hun"), "pause", (2, b"hun"), "pause", (2, b"ter2"), "pause", (1, b"gry\n")]
    attempt = said(runner, [b"hunter2"], plan)
    assert (text(attempt.log, 1), text(attempt.log, 2)) == (b"hungry\n", b"*******")


def test_a_complete_line_is_not_kept_back(runner: Runner) -> None:
    """Also one that may be the start of a value of several lines."""
    script = "echo first; printf 'sec' >&2; while ! [ -e go ]; do sleep 0.01; done"
    env = {"PATH": os.environ["PATH"], "KEY": "first\nsecond"}
    attempt = runner.start("sh", "-c", script, mask=["KEY"], popen={"env": env, "cwd": runner.dir})
    until(lambda: attempt.path("log").exists() and [block.payload for block in attempt.log] == [b"*****\n"], 5, "the line in the log")
    (runner.dir / "go").touch()
    assert text(attempt.ended().log, 2) == b"sec"


@pytest.mark.parametrize("before", [64 * KIB - 3, 64 * KIB, 100_000, 256 * KIB - 3, 600_000])
@pytest.mark.parametrize("pause", [True, False])
def test_a_secret_in_a_very_long_line_is_masked(runner: Runner, before: int, pause: bool) -> None:
    plan: list[str | tuple[int, bytes]] = [(1, b"x" * before + b"hun"), (1, b"ter2" + b"y" * 100_000 + b"\n")]
    if pause:
        plan.insert(1, "pause")
    attempt = said(runner, [b"hunter2"], plan)
    assert text(attempt.log, 1) == attempt.out.replace(b"hunter2", b"*******")
    assert attempt.status["lines"] == 1


def test_a_very_long_secret_is_masked(runner: Runner) -> None:
    """As long as a variable may be."""
    value = os.urandom(50_000).hex().encode()
    attempt = said(runner, [value], [(1, value[:70_000]), "pause", (1, value[70_000:] + b"." + value[:-1])])
    assert text(attempt.log, 1) == b"*" * len(value) + b"." + value[:-1]


def test_a_secret_of_one_byte_again_and_again_takes_no_time(runner: Runner) -> None:
    value = b"a" * 100_000
    attempt = runner.shell(f"head -c {4 * MIB} /dev/zero | tr '\\0' a", mask=["A"], popen={"env": {"PATH": os.environ["PATH"], "A": value.decode()}})
    assert text(attempt.log, 1) == b"*" * 4 * MIB


@pytest.mark.parametrize("cap", [0, 100 * KIB, 200 * KIB])
def test_a_secret_is_masked_in_a_capped_log_too(runner: Runner, cap: int) -> None:
    script = "import os\nfor n in range(30000): os.write(1, b'%d hunter2 %d\\n' % (n, n))\nos.write(1, b'hunt')\nos.write(1, b'er2')"
    env = {"PATH": os.environ["PATH"], "S": "hunter2"}
    attempt = runner.run(*PYTHON, script, mask=["S"], log_cap=cap, popen={"env": env})
    log = text(attempt.log, 1)
    assert log.endswith(b"\n*******")
    assert b"hunter" not in log
    assert len(log) + attempt.status["left_out_bytes"] == len(attempt.out)
    assert attempt.status["lines"] - 1 + attempt.status["left_out_lines"] == 30001


def test_masking_keeps_times_and_order(runner: Runner) -> None:
    before = time.time_ns() // 1000
    attempt = said(runner, [b"hunter2"], [(1, b"hunter2\n"), "pause", (2, b"err\n"), "pause", (1, b"end\n")])
    assert [block.payload for block in attempt.log] == [b"*******\n", b"err\n", b"end\n"]
    assert before <= attempt.log[0].time <= attempt.log[1].time <= attempt.log[2].time


LETTERS = st.text(alphabet="ab", min_size=1, max_size=8).map(str.encode)
LINES = st.lists(st.text(alphabet="ab", min_size=4, max_size=6).map(str.encode), min_size=2, max_size=3).map(b"\n".join)


@pytest.mark.parametrize("binary", BINARIES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    values=st.lists(LETTERS | LINES, min_size=1, max_size=3),
    parts=st.lists(st.tuples(st.sampled_from([1, 2]), LETTERS | LINES | st.sampled_from([b"\n", b"b" * 70_000])) | st.just("pause"), max_size=30),
)
def test_a_secret_is_masked_however_the_reads_fall(binary: str, values: list[bytes], parts: list[str | tuple[int, bytes]]) -> None:
    with volume(binary) as runner:
        attempt = said(runner, values, parts)
        for stream in (1, 2):
            written = b"".join(part[1] for part in parts if not isinstance(part, str) and part[0] == stream)
            assert text(attempt.log, stream) == masked(written, values)
            if stream == 1:
                assert attempt.out == written
