"""One pass over one job: read the record and the pod, decide once, do that one thing, say whether anything is left.

`work.py` calls it. Raises Unavailable when something does not answer and Stale when the record changed under it, or is
another operator's by now: both mean again, later; nothing is half-done, since every action can be done twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import assert_never

from dray import metrics, policy, traces
from dray.action import (
    Action,
    Close,
    Finish,
    Forget,
    Give,
    Kill,
    Launch,
    Open,
    Pull,
    Remake,
    Renew,
    Reopen,
    Retire,
    Save,
    Seed,
    SetMark,
    Tidy,
    TidyInput,
    Unmark,
)
from dray.backends import Backend
from dray.clock import SECOND, microseconds
from dray.environment import launching
from dray.errors import Unavailable
from dray.keeping import Keeper, Truncated
from dray.outputs import Outputs
from dray.pod import Fault, Pod, Shape
from dray.reason import Reason
from dray.record import FINAL, Job, Phase
from dray.secrets import NoSecret, Secrets
from dray.settings import Settings
from dray.shipping import Shipper
from dray.state import Rules, decide, due, inputless, remade, renewed, spoiled, unfed
from dray.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tools:
    """What every job of one operator is worked on with.

    `operator`: its name. `engine`: the backend's name for its own. `holds`: whether the operator's lease does.
    `running`: how many jobs are begun and have not ended. `clock`: microseconds since the epoch.
    """

    store: Store
    backend: Backend
    outputs: Outputs
    settings: Settings
    operator: str
    engine: str
    holds: Callable[[], bool]
    running: Callable[[], int]
    clock: Callable[[], int] = microseconds

    @property
    def rules(self) -> Rules:
        """Of this moment: the jobs that run share what may be started ahead, and each has one step of it."""
        ahead = self.settings.ahead and max(self.settings.ahead // max(self.running(), 1), 1)
        return Rules(ahead, round(self.settings.grace * SECOND), self.engine)


class Reconciler:
    """One job's driver for as long as it is worked on: it is the record's only writer but for clients, so it keeps what it saved."""

    def __init__(self, job_id: str, tools: Tools) -> None:
        self.job_id = job_id
        self.shipper = Shipper(job_id, tools.store, tools.backend, tools.settings.log_cap)
        self.done = False  # nothing is left to do, or not for this operator
        self._job: Job | None = None
        self._read: Job | None = None  # as the pass under way found it
        self._decided_at = 0
        self._barred: dict[int, Fault] | None = None  # steps that this operator will not run; None: not looked at yet
        self._store, self._backend, self._outputs, self._settings = tools.store, tools.backend, tools.outputs, tools.settings
        self._tools, self._holds, self._clock, self._rules = tools, tools.holds, tools.clock, tools.rules
        self._keeper, self._secrets = Keeper(tools.store, tools.backend, tools.outputs, tools.settings), Secrets(tools.settings)

    @property
    def over(self) -> bool:
        """Whether the job has ended, as far as the last pass saw: what is left is cleaning up."""
        return self._job is not None and self._job.phase in FINAL

    @property
    def pause(self) -> float | None:
        """Seconds until a pass is due for no other reason than the time."""
        if self._job is None:
            return None
        time = due(self._job, self._decided_at, self._rules)
        return None if time is None else max(time - self._clock(), 0) / SECOND

    def forget(self) -> None:
        """Read the record anew at the next pass."""
        self._job = None

    @metrics.a_pass
    async def step(self) -> bool:
        """One pass; whether another one is due at once."""
        if not self._holds():
            raise Unavailable("the operator's lease has run out")
        job = self._job = self._read = self._job or await self._store.load(self.job_id)
        if job is None or job.owner != self._tools.operator:
            await self._backend.leave(self.job_id)
            self.done = True
            return False
        pod = self._with_barred(job, await self._backend.look(job))
        self.shipper.seen(job)
        self._decided_at, self._rules = self._clock(), self._tools.rules
        action = decide(job, pod, self._decided_at, self._rules)
        if action is None:
            return False
        log.debug("%s", action.__class__.__name__.lower(), extra={"job": job.id})
        return await self._do(job, pod, action)

    def _with_barred(self, job: Job, pod: Pod) -> Pod:
        """The pod, with a fault for each step that may not be run here."""
        if self._barred is None:
            refusals = ((step, policy.refusal(job.spec, step, self._settings)) for step in range(len(job.steps)))
            self._barred = {step: fault for step, fault in refusals if fault is not None}
        faults = {(step, job.steps[step].attempt): fault for step, fault in self._barred.items()}
        return replace(pod, images={**pod.images, **faults}) if faults else pod

    async def _do(self, job: Job, pod: Pod, action: Action) -> bool:  # noqa: C901, PLR0912 (a case for each action)
        match action:
            case Save(seen):
                await self._save(seen)
            case Open():
                name = await self._backend.open(job)
                if (job.pod, job.engine) != (name, self._rules.engine):
                    await self._save(replace(job, pod=name, engine=self._rules.engine))
            case Renew(kept):
                await self._renew(job, kept)
            case SetMark(mark, text):
                await self._backend.mark(job, mark, text)
            case Unmark(mark):
                await self._backend.unmark(job, mark)
            case Give():
                await self._give(job)
            case Seed(step):
                await self._seed(job, step)
            case Reopen(step):
                await self._backend.reopen(job, step)
            case Pull(step, early):
                self._bar(step, None)
                await self._backend.pull(job, step, early)
            case Launch(step):
                await self._launch(job, step)
            case Remake(step):
                await self._backend.remove(job, (step, job.steps[step].attempt))
                await self._save(remade(job, step))
            case Kill(key):
                await self._backend.remove(job, key)
            case Tidy():
                await self._tidy(job, action)
            case TidyInput():
                await self._backend.drop_input(job)
            case Finish(seen):
                await self._finish(seen, pod)
            case Close():
                await self._backend.close(job)
            case Retire():
                await self._store.retire(job)
                self.done = True
            case Forget():
                await self._outputs.remove(job.id)
                await self._store.forget(job)
                self.done = True
            case _:
                assert_never(action)
        return not self.done

    async def _save(self, job: Job) -> None:
        self._job = saved = await self._store.save(job)
        for tell in (_tell, metrics.observe, traces.observe):
            tell(self._read, saved)

    async def _launch(self, job: Job, step: int) -> None:
        try:
            given = await launching(job, step, self._secrets, self._backend.resolves)
        except NoSecret as error:
            self._bar(step, Fault(Reason.SECRET_NOT_FOUND, str(error), early=step != job.current))
        else:
            await self._backend.launch(job, step, given)

    def _bar(self, step: int, fault: Fault | None) -> None:
        assert self._barred is not None  # set at the first look
        if fault is None:
            self._barred.pop(step, None)
        else:
            self._barred[step] = fault

    async def _give(self, job: Job) -> None:
        kept = await self._keeper.find_input(job)
        try:
            if kept is None:
                raise Truncated
            await self._backend.give(job, kept)
        except Truncated:
            log.warning("the job's input is not to be had as it came", extra={"job": job.id})
            await self._save(unfed(job, self._clock()))

    async def _seed(self, job: Job, step: int) -> None:
        kept = await self._keeper.find(job, step)
        try:
            if kept is None:
                raise Truncated
            await self._backend.seed(job, step, kept)
        except Truncated:
            log.warning("the output of step %d is not kept", step + 1, extra={"job": job.id})
            await self._save(inputless(job, self._clock()))

    async def _renew(self, job: Job, kept: int | None) -> None:
        if kept is not None:
            with suppress(Truncated, FileNotFoundError):  # then there is nothing to go on from, as will be seen
                await self._keeper.keep_whole(job, kept)
        await self._save(renewed(job))

    async def _tidy(self, job: Job, tidy: Tidy) -> None:
        await self._keeper.keep(job, tidy.key)
        if tidy.output:
            await self._backend.drop(job, tidy.key)
        if tidy.box:
            await self._backend.remove(job, tidy.key)

    async def _finish(self, seen: Job, pod: Pod) -> None:
        if not seen.told.doomed:
            if pod.shape is Shape.OPEN:
                await self.shipper.drain(seen)
                await self._keeper.keep_all(seen)
            if seen.phase is Phase.COMPLETE:
                seen = await self._with_output(seen, pod.gone)
            if seen.failed is not None:
                seen = replace(seen, stderr=await self._store.stderr(seen.id, (seen.failed, seen.steps[seen.failed].attempt)))
        await self._save(seen)

    async def _with_output(self, job: Job, gone: Fault | None) -> Job:
        try:
            return replace(job, output=await self._keeper.keep_last(job))
        except (Truncated, FileNotFoundError):
            return spoiled(job, self._clock(), gone)


def _tell(before: Job | None, after: Job) -> None:
    """One log line for each change a person would want to read of."""
    if before is not None and before.phase is after.phase and before.steps == after.steps:
        return
    step = min(after.current, len(after.steps) - 1)
    extra = {"job": after.id, "step": step + 1, "attempt": after.steps[step].attempt}
    if after.phase is Phase.ERROR:
        log.info("job failed: %s: %s", after.reason, after.message, extra=extra)
    elif after.phase is Phase.COMPLETE:
        log.info("job complete", extra=extra)
    else:
        log.info("job running, %d of %d steps complete", sum(state.phase is Phase.COMPLETE for state in after.steps), len(after.steps), extra=extra)
