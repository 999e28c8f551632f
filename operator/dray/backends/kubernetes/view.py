"""What is known of one job's pod: what its volume showed last, and what that and the API server's word make of it.

A step's container runs a box (docs/protocol.md), which waits for an order for each attempt. So a container says how the
last attempt that was ordered stands; of those before it only their traces are left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dray import runner
from dray.backends.agent import Agent
from dray.backends.kubernetes import faults, names
from dray.backends.kubernetes.pods import Container, Seen
from dray.backends.kubernetes.registry import ImageConfig
from dray.pod import Box, Fault, Image, Key, Pod, Shape, Stage
from dray.reason import Reason
from dray.record import FINAL, Job

_TRIED = 35.0  # seconds: a kubelet tries at once, after 10 and after 20 more


@dataclass
class View:
    """`orders`: as of the last look at the volume, and of our own since; None: it was not looked at here yet.

    `made`: its Job was made here just now. `refused`: why the API server did not make it. `asked`: attempts whose image
    was asked for, and whether before their turn; `images`: by step, what its registry says (None: nothing yet).
    `removed`: attempts whose boxes are not to be shown any more. `unseen_since`: when it was looked for first, in
    seconds of `time.monotonic`.
    """

    pod: str
    made: bool = False
    refused: Fault | None = None
    unseen_since: float | None = None
    agent: Agent | None = None
    traces: dict[Key, runner.Traces] = field(default_factory=dict)
    orders: set[Key] | None = None
    asked: dict[Key, bool] = field(default_factory=dict)
    images: dict[int, ImageConfig | Fault | None] = field(default_factory=dict)
    removed: set[Key] = field(default_factory=set)
    waking: asyncio.TimerHandle | None = None

    def wake_after(self, seconds: float, wake: Callable[[], None]) -> None:
        """In place of the call before it."""
        if self.waking is not None:
            self.waking.cancel()
        self.waking = asyncio.get_running_loop().call_later(seconds, wake)

    async def hang_up(self) -> None:
        if self.waking is not None:
            self.waking.cancel()
        if self.agent is not None:
            agent, self.agent = self.agent, None
            await agent.close()


def opened(view: View, job: Job, seen: Seen, listing: bytes) -> Pod:
    """The pod whose volume shows that. Notes in the view what later calls need."""
    view.traces, view.orders = runner.traces(listing), set(runner.orders(listing))
    verdicts = runner.verdicts(listing)
    latest: dict[int, int] = {}
    for step, attempt in view.orders:
        latest[step] = max(attempt, latest.get(step, 0))
    boxes: dict[Key, Box] = {}
    for key in view.orders | view.traces.keys():
        traces = view.traces.get(key, runner.Traces())
        container = seen.containers.get(names.box(key[0]), Container()) if key in view.orders and latest[key[0]] == key[1] else None
        box = _box(container, traces, _goes_on(job, key, traces, verdicts), key in view.removed or key not in view.orders)
        if box is not None:
            boxes[key] = box
    spent = frozenset(step for step in range(len(job.steps)) if seen.containers.get(names.box(step), Container()).state == "terminated")
    marks = runner.marks(listing)
    return Pod(Shape.OPEN, boxes, _images(view, job, seen), marks, verdicts, runner.given(listing), runner.holds_input(listing), spent)


def _goes_on(job: Job, key: Key, traces: runner.Traces, verdicts: frozenset[int]) -> bool:
    """Whether the box outlives this attempt, which failed, to be given another."""
    step, attempt = key
    if traces.status is None or traces.status.exit == 0 or step in verdicts or step >= len(job.steps):
        return False
    state = job.steps[step]
    return attempt < state.attempt or (attempt == state.attempt and len(state.past) < job.spec.steps[step].retries)


def _box(container: Container | None, traces: runner.Traces, goes_on: bool, removed: bool) -> Box | None:
    """None: there is none. `container`: of the attempt that was ordered last; of another, and of one laid here, None."""
    stage, code, oom = Stage.ABSENT, None, False
    if container is None:
        ended = traces.status is not None and not removed
        stage, code = (Stage.ENDED, traces.status.exit) if ended and traces.status is not None else (stage, None)
    elif container.state == "terminated":
        stage, code, oom = Stage.ENDED, container.code, container.reason == faults.OOM
    elif goes_on and traces.status is not None:
        stage, code = Stage.ENDED, traces.status.exit
    elif container.state == "running" or faults.of_container(container, "", False) is None:
        stage = Stage.RUNNING
    elif traces == runner.Traces():
        return None
    if removed and stage is Stage.ENDED:
        stage, code, oom = Stage.ABSENT, None, False
    return Box(stage, code, oom, traces.claimed_at, traces.status, holds_output=traces.out is not None)


def _images(view: View, job: Job, seen: Seen) -> dict[Key, Image | Fault]:
    return {key: _image(view, job, key, seen) for key in view.asked}


def _image(view: View, job: Job, key: Key, seen: Seen) -> Image | Fault:
    step, early = key[0], view.asked[key]
    container, config, spec = seen.containers.get(names.box(step), Container()), view.images.get(step), job.spec.steps[step]
    refers = any(variable.named for variable in job.spec.environment_of(step).values())
    if isinstance(config, Fault) and not spec.command:
        return Fault(config.reason, config.message, early)
    fault = faults.of_container(container, spec.source, refers)
    if fault is not None and fault.reason is Reason.IMAGE_PULL_FAILED and (config is None or (not _none_has(config) and may_still_come(seen) > 0)):
        return Image.PULLING  # its registry will say more, or the kubelet will try again
    if fault is not None:
        known = config if isinstance(config, Fault) else fault
        return Fault(known.reason, known.message, early)
    if config is None and not spec.command:
        return Image.PULLING
    return Image.READY


def _none_has(config: ImageConfig | Fault) -> bool:
    return isinstance(config, Fault) and config.reason is Reason.IMAGE_NOT_FOUND


def may_still_come(seen: Seen) -> float:
    """Seconds that a pull which fails is no fault yet, so that the kubelet has tried three times."""
    return seen.since + _TRIED - time.monotonic()


def gone(view: View | None, job: Job, seen: Seen | None, why: Fault) -> Pod:
    """A pod that is there no longer: with a box for each attempt that may have begun, by all that is known here."""
    if seen is not None and not seen.begun:
        may_have: set[Key] = set()
    elif view is not None and view.orders is not None:
        may_have = view.orders
    else:
        may_have = {(step, state.attempt) for step, state in enumerate(job.steps) if state.phase not in FINAL}
    return Pod(Shape.ABSENT, {key: Box(Stage.ABSENT) for key in may_have}, gone=why)
