"""What there is to do for a job: `state.decide` names one of these, `reconcile.py` does it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from dray.pod import Key, Mark
from dray.record import Job


@dataclass(frozen=True, slots=True)
class Save:
    """Record this."""

    job: Job


@dataclass(frozen=True, slots=True)
class Open:
    """Make the pod's volume and sandbox, or the sandbox again."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Keep the output of this step, if it is one, whatever its size; then have a new pod: in this one no further attempt can be made."""

    kept: int | None


@dataclass(frozen=True, slots=True)
class SetMark:
    """Lay the mark into the volume."""

    mark: Mark
    text: str


@dataclass(frozen=True, slots=True)
class Unmark:
    """Take the mark away."""

    mark: Mark


@dataclass(frozen=True, slots=True)
class Seed:
    """Lay the kept output of a complete step into a volume that does not have it."""

    step: int


@dataclass(frozen=True, slots=True)
class Give:
    """Lay the job's input into the volume."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Say again that the step ended well: the word that opens the gate after it is gone, as after a power cut."""

    step: int


@dataclass(frozen=True, slots=True)
class Pull:
    """Have the step's image on the engine. `early`: its turn has not come."""

    step: int
    early: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """Create the step's box and start it behind its gate."""

    step: int


@dataclass(frozen=True, slots=True)
class Remake:
    """Remove a box that never began, so that it is made again."""

    step: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Remove a box by force: its runner does not end it."""

    key: Key


@dataclass(frozen=True, slots=True)
class Tidy:
    """Remove an ended attempt's box, if it has one, and its output, if `output` says so."""

    key: Key
    box: bool
    output: bool


@dataclass(frozen=True, slots=True)
class TidyInput:
    """Remove the job's input from the volume: its step has read it."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Keep the log's rest and the outputs that are to be kept; then record the end."""

    job: Job


@dataclass(frozen=True, slots=True)
class Close:
    """Remove the whole pod."""


@dataclass(frozen=True, slots=True)
class Retire:
    """Nothing is left to do for this job."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the record of a deleted job, its log and its output."""


Action = Save | Open | Renew | SetMark | Unmark | Give | Seed | Reopen | Pull | Launch | Remake | Kill | Tidy | TidyInput | Finish | Close | Retire | Forget
