"""The Backend: what an engine that runs a job's pod must offer. A written contract, held by tests/contract/test_backend.py.

A pod is a volume, a sandbox and one box for each attempt of a step, as docs/architecture.md describes. For one job the
calls come one at a time; for different jobs side by side. Whoever calls may be killed between any two of them, or
during one, and another process goes on: so every call that changes something can be made again, and again is the same.

Order: `start` before all else. `open` before `launch`, `read` and `drop`; `pull` of a step before its `launch`.

Absence: a box that is not there is absent from `look`'s answer. An engine that does not answer is `Unavailable`, never
an empty answer. `Unavailable` says nothing about any job.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Protocol

from dray.state import Job, Pod


class Backend(Protocol):
    """See the module's text for what holds of all of them."""

    async def start(self, instance: str) -> None:
        """Make ready. Everything made carries `instance`, and only what carries it is ever removed."""

    async def stop(self) -> None:
        """Let go of connections and background work; what runs on the engine goes on."""

    async def ping(self) -> None:
        """Raises Unavailable when the engine does not answer."""

    async def look(self, job: Job) -> Pod:
        """All that stands for the job. The engine is asked before the volume: a box shown as ended has no later traces."""

    async def open(self, job: Job) -> str:
        """The pod's volume and a running sandbox; the pod's name, which never changes. A dead sandbox is made anew on the same volume."""

    async def pull(self, job: Job, step: int, early: bool) -> None:
        """See to the step's image: at once READY when it is there, else PULLING, and a wake-up when that has ended. `look` tells."""

    async def launch(self, job: Job, step: int) -> None:
        """The step's box, started behind its gate; started already is fine. Where the engine refuses it for good, `look` shows the fault."""

    async def remove(self, job: Job, step: int) -> None:
        """Remove the box of the step's attempt, whatever it does. Its traces stay. Gone already is fine."""

    async def drop(self, job: Job, step: int) -> None:
        """Remove the output of the step's attempt from the volume. Gone already is fine."""

    def logs(self, job: Job) -> Mapping[tuple[int, int], int]:
        """Bytes in the log file of each (step, attempt), as of the last look."""

    async def read_log(self, job: Job, key: tuple[int, int], offset: int) -> bytes:
        """Bytes of an attempt's log file from `offset`, as many as come at once; empty at the end."""

    def read_output(self, job: Job, step: int) -> AsyncIterator[bytes]:
        """The output of the step's attempt, in blocks. Raises FileNotFoundError where it is gone."""

    async def close(self, job: Job) -> None:
        """Remove the whole pod: every box, the sandbox, the volume."""

    async def sweep(self, active: Collection[str]) -> None:
        """Remove what carries the instance but belongs to none of the active jobs."""

    def wakes(self) -> AsyncIterator[str | None]:
        """Ids of jobs whose pod changed; None: anything may have changed unseen. Ends only with `stop`."""
