"""What a step reads, laid into a volume in which nothing wrote it: the output of a step that ran elsewhere, or the job's input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from dray import runner
from dray.backends.agent import Agent
from dray.pod import Status
from dray.record import Input, StepState

Name = tuple[int | str, int]
"""(step, attempt), or (INPUT, 1)."""


class WrongSize(Exception):
    """An output has not as many bytes as the record says."""


async def seed(agent: Agent, name: Name, status: Status, content: AsyncIterator[bytes]) -> None:
    """Output, status, verdict, in this order: only the last opens the gate, and once it is there nothing more is done.

    What was half done before is done anew. An output that is not as long as the status says is laid as none: the gate
    after it compares the two, as it does of any, and says that the step's input is damaged.
    """
    with suppress(FileNotFoundError):
        await agent.read(runner.verdict_file(name[0]), 0, 1)
        return
    await agent.drop(runner.output_file(*name))
    await agent.drop(runner.status_file(*name))
    try:
        await _lay(agent, runner.output_file(*name), status.bytes_out, content)
    except WrongSize:
        await agent.drop(runner.output_file(*name))
        await agent.write(runner.output_file(*name), b"")
    await agent.write(runner.status_file(*name), runner.status_line(status))
    await reopen(agent, name)


def of_step(state: StepState) -> Status:
    """As the step's own runner noted it."""
    times = (state.started_at or 0, state.finished_at or 0)
    return Status(0, 0, 0, "", 0, state.bytes_in or 0, state.bytes_out or 0, *times, state.sha256)


def of_input(given: Input) -> Status:
    """As if a step had left it."""
    return Status(0, 0, 0, "", 0, 0, given.size, 0, 0, given.sha256)


async def reopen(agent: Agent, name: Name) -> None:
    """The verdict that the attempt ended well."""
    with suppress(FileExistsError):
        await agent.write(runner.verdict_file(name[0]), f"ok {name[1]}\n".encode())


async def _lay(agent: Agent, name: str, size: int, output: AsyncIterator[bytes]) -> None:
    """A small one at once; a large one as it comes."""
    buffer, offset = bytearray(), 0
    async for block in output:
        buffer += block
        if offset + len(buffer) > size:
            raise WrongSize(name)
        while len(buffer) >= runner.MAX_WRITE:
            await agent.append(name, offset, bytes(buffer[: runner.MAX_WRITE]))
            offset += runner.MAX_WRITE
            del buffer[: runner.MAX_WRITE]
    if offset + len(buffer) != size:
        raise WrongSize(name)
    if offset == 0:
        return await agent.write(name, bytes(buffer))
    await agent.append(name, offset, bytes(buffer))
    return await agent.finish(name, size)
