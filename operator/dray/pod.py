"""What a backend shows of a job: its pod, a box for each attempt of a step, and what they left in the volume. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dray.reason import Reason

Key = tuple[int, int]
"""(step, attempt)"""


class Stage(StrEnum):
    """Of a step's container, in the engine's word."""

    MADE = "made"  # created, not started
    RUNNING = "running"
    ENDED = "ended"
    ABSENT = "absent"  # no container, only traces in the volume


@dataclass(frozen=True, slots=True)
class Status:
    """What the runner wrote at an attempt's end (docs/protocol.md, N.A.status). `code` is -1 when a signal ended it."""

    exit: int
    code: int
    signal: int
    error: str
    errno: int
    bytes_in: int
    bytes_out: int
    started_at: int
    finished_at: int
    sha256: str = ""  # of the output, in hex


@dataclass(frozen=True, slots=True)
class Box:
    """One attempt of one step: its container as the engine shows it and its traces in the volume.

    `code`, `oom`: the engine's word on how it ended. `claimed_at`: when the command began. `cut_off`: it belongs to a
    sandbox that is no more, so it has no network. `holds_output`: its output still lies in the volume.
    """

    stage: Stage
    code: int | None = None
    oom: bool = False
    claimed_at: int | None = None
    status: Status | None = None
    cut_off: bool = False
    holds_output: bool = False


class Shape(StrEnum):
    """Of a job's pod. Only when it is OPEN are the traces in its volume known."""

    ABSENT = "absent"  # no volume
    OPENING = "opening"  # being made: nothing in it can have begun
    GOING = "going"  # being taken away: what still runs in it is being ended, and its end says nothing
    SHUT = "shut"  # a volume, but no running sandbox
    OPEN = "open"


class Image(StrEnum):
    """Of a step's image, as far as this operator knows."""

    PULLING = "pulling"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a step cannot be run, or how an attempt failed. `early`: found before the step's turn, so worth another look."""

    reason: Reason
    message: str
    early: bool = False


class Mark(StrEnum):
    """A file in the volume by which the operator tells the runners something. docs/protocol.md has them."""

    STOP = "stop"  # end what runs of the steps not marked always, begin no other
    HALT = "halt"  # the same of those marked always
    HOLD = "hold"  # begin no step


@dataclass(frozen=True)
class Pod:
    """All that stands for one job: boxes and images by (step, attempt) (absent: not asked for yet), steps with a verdict, marks.

    A fault among the images bars its attempt: the image cannot be had, the engine will not start it, or this operator may not.
    `given`: the job's input was laid into the volume, whole; `holds_input`: it, or a part of it, still lies there.
    `spent`: steps whose box has ended in a pod that cannot have another one. `gone`: why the cluster took the whole pod
    with its volume, or did not bring it up; then `boxes` are of the attempts that may have begun in it.
    """

    shape: Shape = Shape.ABSENT
    boxes: Mapping[Key, Box] = field(default_factory=dict)
    images: Mapping[Key, Image | Fault] = field(default_factory=dict)
    marks: frozenset[Mark] = frozenset()
    verdicts: frozenset[int] = frozenset()
    given: bool = False
    holds_input: bool = False
    spent: frozenset[int] = frozenset()
    gone: Fault | None = None
