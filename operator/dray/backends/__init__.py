"""The Backend: what an engine that runs a job's pod must offer. A written contract, held by tests/contract/test_backend.py.

A pod is a volume, a sandbox and one box for each attempt of a step, as docs/architecture.md describes. For one job the
calls come one at a time; for different jobs side by side. Whoever calls may be killed between any two of them, or
during one, and another process goes on: so every call that changes something can be made again, and again is the same.

Order: `start` before all else. `open`, and a look that shows the pod OPEN, before `launch`, `mark`, `give`, `seed`, `read_…`
and `drop`; `pull` of a step before its `launch`. A `Key` is (step, attempt); where only a step is given, its attempt is the record's.

Absence: a box that is not there is absent from `look`'s answer. An engine that does not answer is `Unavailable`, never
an empty answer. `Unavailable` says nothing about any job.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from dray.pod import Key, Mark, Pod
from dray.record import Job
from dray.spec import JobSpec


@dataclass(frozen=True)
class Launching:
    """What a box is given besides what its step says: the whole environment, the variables of it that no log may show,
    how often the attempt may be followed by another."""

    environment: Mapping[str, str]
    masked: tuple[str, ...] = ()
    retries: int = 0


@dataclass(frozen=True)
class Claims:
    """What must stay: by id, the name of each active job's pod (None: none is recorded yet), and the operators alive."""

    jobs: Mapping[str, str | None]
    operators: Collection[str]


class Backend(Protocol):
    """See the module's text for what holds of all of them. `resolves`: whether a launch is to be given the values of secrets."""

    @property
    def resolves(self) -> bool: ...

    async def start(self, instance: str, operator: str) -> str:
        """Make ready; a name for the engine, the same for all who work on it.

        Everything made carries `instance`, and only what carries it is ever removed; what is made ahead of any job
        carries `operator` too.
        """

    async def stop(self) -> None:
        """Let go of connections and background work, and of what was made ahead; what runs on the engine goes on."""

    async def ping(self) -> None:
        """Raises Unavailable when the engine does not answer."""

    async def look(self, job: Job) -> Pod:
        """All that stands for the job. The engine is asked before the volume: a box shown as ended has no later traces."""

    async def open(self, job: Job) -> str:
        """The pod's volume and a sandbox; the pod's name, which never changes. A dead sandbox is made anew on the same volume, where that outlives it.

        `look` may show the pod as OPENING for a while. What a record's earlier pods left is removed.
        """

    async def pin(self, spec: JobSpec) -> tuple[str, ...]:
        """By step, a name of its image that can only ever mean the image of this moment. Raises Invalid, naming the steps without one."""

    async def pull(self, job: Job, step: int, early: bool) -> None:
        """See to the step's image: at once READY when it is there, else PULLING, and a wake-up when that has ended. `look` tells."""

    async def launch(self, job: Job, step: int, given: Launching) -> None:
        """Begin to make the step's box and start it behind its gate; begun already is fine.

        From now on `look` shows it as running. Where the engine refuses it for good, `look` shows the fault; where
        something does not answer, the next `look` raises Unavailable and shows what there is from then on.
        """

    async def remove(self, job: Job, key: Key) -> None:
        """Remove an attempt's box, or end its command by force, whatever it does. Its traces stay. Gone already is fine."""

    async def drop(self, job: Job, key: Key) -> None:
        """Remove an attempt's output from the volume. Gone already is fine."""

    async def drop_input(self, job: Job) -> None:
        """The same of the job's input; that it was given stays known."""

    async def mark(self, job: Job, mark: Mark, text: str) -> None:
        """Tell the runners: the mark with its text is in the volume. There already is fine, whatever its text."""

    async def unmark(self, job: Job, mark: Mark) -> None:
        """Take the mark away. Gone already is fine."""

    async def reopen(self, job: Job, step: int) -> None:
        """Say once more that the step's attempt ended well, where a power cut took the word that opens the gate after it. Said already is fine."""

    async def give(self, job: Job, content: AsyncIterator[bytes]) -> None:
        """Lay the job's input into the volume, and then open the first step's gate. Given already is fine; what raises leaves the gate shut."""

    async def seed(self, job: Job, step: int, output: AsyncIterator[bytes]) -> None:
        """Lay the output of the step's attempt, which ended well in another pod, into this volume, and then open the gate after it."""

    def logs(self, job: Job) -> Mapping[Key, int]:
        """Bytes in each attempt's log file, as of the last look."""

    async def read_log(self, job: Job, key: Key, offset: int) -> bytes:
        """Bytes of an attempt's log file from `offset`, as many as come at once; empty at the end."""

    def read_output(self, job: Job, step: int) -> AsyncIterator[bytes]:
        """The output of the step's attempt, in blocks. Raises FileNotFoundError where it is gone."""

    async def close(self, job: Job) -> None:
        """Remove the whole pod: every box, the sandbox, the volume."""

    async def leave(self, job_id: str) -> None:
        """The job is another operator's now: let go of what is known of it, and of what was made for it but never recorded."""

    async def sweep(self, claims: Callable[[], Awaitable[Claims]]) -> None:
        """Remove what carries the instance and nobody claims. The engine is asked first, and then for the claims."""

    def wakes(self) -> AsyncIterator[str | None]:
        """Ids of jobs whose pod changed; None: anything may have changed unseen. Ends only with `stop`."""
