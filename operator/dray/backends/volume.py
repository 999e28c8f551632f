"""What every backend with an agent does by it alone: the volume is told, cleared, given to and asked for its logs in the same way on each engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from dray import runner
from dray.backends.agent import Agent
from dray.backends.seed import of_input, of_step, reopen, seed
from dray.pod import Key, Mark
from dray.record import INPUT, Job


class ByAgent(ABC):
    """A part of `dray.backends.Backend`."""

    @abstractmethod
    def _agent(self, job: Job) -> Agent:
        """Of the job's pod, as of the last look. Raises Unavailable where there is none."""

    @abstractmethod
    def _traces(self, job: Job) -> Mapping[Key, runner.Traces]:
        """What attempts left in its volume, as of the last look."""

    def logs(self, job: Job) -> Mapping[Key, int]:
        return {key: traces.log for key, traces in self._traces(job).items() if traces.log is not None}

    async def drop(self, job: Job, key: Key) -> None:
        await self._agent(job).drop(runner.output_file(*key))

    async def drop_input(self, job: Job) -> None:
        await self._agent(job).drop(runner.output_file(INPUT, 1))

    async def mark(self, job: Job, mark: Mark, text: str) -> None:
        with suppress(FileExistsError):
            await self._agent(job).write(mark, text.encode())

    async def unmark(self, job: Job, mark: Mark) -> None:
        await self._agent(job).drop(mark)

    async def reopen(self, job: Job, step: int) -> None:
        await reopen(self._agent(job), (step, job.steps[step].attempt))

    async def seed(self, job: Job, step: int, output: AsyncIterator[bytes]) -> None:
        await seed(self._agent(job), (step, job.steps[step].attempt), of_step(job.steps[step]), output)

    async def give(self, job: Job, content: AsyncIterator[bytes]) -> None:
        assert job.input is not None  # who gives has one
        await seed(self._agent(job), (INPUT, 1), of_input(job.input), content)
