"""The Python side of the native runner: where it is, how it is called, and what its files say. docs/protocol.md is the whole of it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from dray.errors import BadSetting
from dray.pod import Mark, Status
from dray.record import INPUT, Job
from dray.settings import Settings
from dray.spec import Step

VOLUME_DIR = "/.dray"
RUNNER_DIR = "/.dray-bin"
RUNNER = f"{RUNNER_DIR}/dray-runner"
SANDBOX = (RUNNER, "sandbox")
AGENT = (RUNNER, "agent", "--dir", VOLUME_DIR)
MAX_READ = 2**20  # bytes asked of the agent at a time
MAX_WRITE = 2**20  # bytes the agent takes at a time


def binary() -> bytes:
    """The native program. Raises BadSetting where it was not built."""
    path = Path(__file__).parent / "bin" / "dray-runner"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadSetting(f"{path} is missing: `make setup` builds it") from None


def architecture() -> str:
    """Of this machine, and so of the runner that is built here, as engines and registries call it."""
    here = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(here, here)


def step_command(step: int, attempt: int, spec: Step, command: Sequence[str], settings: Settings, *, options: Sequence[str] = ()) -> list[str]:
    """What a step's container runs: the runner, with these `options` too, and behind its gate the image's own command."""
    given = ["--dir", VOLUME_DIR, "--step", str(step), "--attempt", str(attempt), "--output", spec.output]
    if spec.delimiters:
        given += ["--begin", spec.delimiters[0], "--end", spec.delimiters[1]]
    caps = ["--log-cap", str(settings.log_cap), "--data-cap", str(settings.data_cap), "--floor", str(settings.disk_floor)]
    return [RUNNER, "step", *given, *caps, *options, "--", *command]


def step_options(job: Job, step: int, retries: int, masked: Iterable[str], settings: Settings) -> list[str]:
    """The options of one attempt that follow from its job; `retries`: how often it may be followed by another."""
    spec = job.spec.steps[step]
    given = ["--grace", str(round(settings.grace * 1000)), "--retries", str(retries), *gate_options(job, step)]
    if spec.timeout is not None:
        given += ["--timeout", str(max(round(spec.timeout * 1000), 1))]
    if spec.always:
        given += ["--output", "none"]
    for variable in masked:
        given += ["--mask", variable]
    return given


def gate_options(job: Job, step: int) -> list[str]:
    """What the step waits for, where that is not the step before, and what stops it."""
    if job.spec.steps[step].always:
        return ["--input", "none", "--stop", "halt"]
    return ["--input", "given"] if step == 0 and job.input is not None else []


def box_command(step: int, *, options: Sequence[str] = ()) -> list[str]:
    """What a step's container runs where its attempts are ordered; `options`: the `gate_options` that the orders will have."""
    return [RUNNER, "box", "--dir", VOLUME_DIR, "--step", str(step), *options]


def order(environment: Mapping[str, str], command: Sequence[str]) -> bytes:
    """A launch file's content: the box runs this `step_command`, with this environment besides its container's."""
    fields = [*(f"{name}={value}" for name, value in environment.items()), "", *command[2:]]
    return b"".join(field.encode() + b"\0" for field in fields)


def launch_file(step: int, attempt: int) -> str:
    return f"{step}.{attempt}.launch"


def output_file(step: int | str, attempt: int) -> str:
    """`step`: INPUT for the job's input, which is as the output of an attempt 1."""
    return f"{step}.{attempt}.out"


def status_file(step: int | str, attempt: int) -> str:
    return f"{step}.{attempt}.status"


def verdict_file(step: int | str) -> str:
    return f"{step}.verdict"


def log_file(step: int, attempt: int) -> str:
    return f"{step}.{attempt}.log"


@dataclass(frozen=True, slots=True)
class Traces:
    """What one attempt left in the volume. `out` and `log` are sizes in bytes, None where the file is not there."""

    claimed_at: int | None = None
    status: Status | None = None
    out: int | None = None
    log: int | None = None


def traces(listing: bytes) -> dict[tuple[int, int], Traces]:
    """The agent's `look` reply as traces by (step, attempt)."""
    found: dict[tuple[int, int], dict[str, object]] = {}
    for key, kind, size, text in _files(listing):
        field, value = _FIELDS[kind](size, text)
        found.setdefault(key, {})[field] = value
    return {key: Traces(**fields) for key, fields in found.items()}  # type: ignore[arg-type]


def marks(listing: bytes) -> frozenset[Mark]:
    """Those in the agent's `look` reply."""
    names = set(_names(listing))
    return frozenset(mark for mark in Mark if mark in names)


def verdicts(listing: bytes) -> frozenset[int]:
    """The steps whose verdict is in the agent's `look` reply."""
    parts = (name.partition(".") for name in _names(listing))
    return frozenset(int(step) for step, _, kind in parts if kind == "verdict" and step.isdecimal())


def given(listing: bytes) -> bool:
    """Whether the job's input is told to be whole in the agent's `look` reply."""
    return verdict_file(INPUT) in _names(listing)


def holds_input(listing: bytes) -> bool:
    """Whether it is there."""
    return output_file(INPUT, 1) in _names(listing)


def orders(listing: bytes) -> frozenset[tuple[int, int]]:
    """The attempts that boxes are ordered to run, in the agent's `look` reply."""
    parts = (name.split(".") for name in _names(listing))
    return frozenset((int(part[0]), int(part[1])) for part in parts if len(part) == 3 and part[2] == "launch" and part[0].isdecimal() and part[1].isdecimal())


def _names(listing: bytes) -> Iterator[str]:
    """Of all files."""
    return (line.partition(b" ")[0].decode(errors="replace") for line in listing.splitlines())


def _files(listing: bytes) -> Iterator[tuple[tuple[int, int], str, int, str]]:
    """((step, attempt), kind, size, content) of each file of an attempt."""
    for line in listing.splitlines():
        name, _, rest = line.decode(errors="replace").partition(" ")
        size, _, text = rest.partition(" ")
        match name.split("."):
            case [step, attempt, kind] if kind in _FIELDS and step.isdecimal() and attempt.isdecimal():
                yield (int(step), int(attempt)), kind, int(size), text


_MOST = 2**53  # more than any size, or time in microseconds
_NUMBERS = ("exit", "code", "signal", "errno", "in", "out", "started", "finished")


def _time(text: str) -> int:
    """Of a claim; 0 where it is no time: a step may have written there."""
    time = int(text) if text.isdecimal() else 0
    return time if time < _MOST else 0


def _status(text: str) -> Status | None:
    """None where it is no status of the runner's: a step may have written there."""
    try:
        found = orjson.loads(text)
        numbers = [found[name] for name in _NUMBERS]
        if not all(type(number) is int and abs(number) < _MOST for number in numbers):
            return None
        exit_code, code, signal, errno, size_in, size_out, started, finished = numbers
        return Status(exit_code, code, signal, str(found["error"]), errno, size_in, size_out, started, finished, str(found["sha256"]))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def status_line(status: Status) -> bytes:
    """A status file's text as the runner writes it, of an attempt that left no log. Without a boot id: its output is proved before it is read."""
    line = {
        "exit": status.exit,
        "code": status.code,
        "signal": status.signal,
        "error": status.error,
        "errno": status.errno,
        "in": status.bytes_in,
        "out": status.bytes_out,
        **dict.fromkeys(("log", "lines", "left_out_lines", "left_out_bytes"), 0),
        "started": status.started_at,
        "finished": status.finished_at,
        "sha256": status.sha256,
        "boot": "",
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


_FIELDS: dict[str, Callable[[int, str], tuple[str, object]]] = {
    "claim": lambda size, text: ("claimed_at", _time(text)),
    "status": lambda size, text: ("status", _status(text)),
    "out": lambda size, text: ("out", size),
    "log": lambda size, text: ("log", size),
}
