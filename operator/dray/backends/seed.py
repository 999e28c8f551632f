"""A complete step's output, laid into a volume in which the step did not run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from dray import runner
from dray.backends.agent import Agent
from dray.pod import Key, Status
from dray.record import StepState


class WrongSize(Exception):
    """An output has not as many bytes as the record says."""


async def seed(agent: Agent, key: Key, state: StepState, output: AsyncIterator[bytes]) -> None:
    """Output, status, verdict, in this order: only the last opens the gate, and once it is there nothing more is done.

    What was half done before is done anew. An output that is not as long as the record says is laid as none: the gate
    after it compares it with the status, as it does any, and says that the step's input is damaged.
    """
    with suppress(FileNotFoundError):
        await agent.read(runner.verdict_file(key[0]), 0, 1)
        return
    await agent.drop(runner.output_file(*key))
    await agent.drop(runner.status_file(*key))
    try:
        await _lay(agent, runner.output_file(*key), state.bytes_out or 0, output)
    except WrongSize:
        await agent.drop(runner.output_file(*key))
        await agent.write(runner.output_file(*key), b"")
    times = (state.started_at or 0, state.finished_at or 0)
    status = Status(0, 0, 0, "", 0, state.bytes_in or 0, state.bytes_out or 0, *times, state.sha256)
    await agent.write(runner.status_file(*key), runner.status_line(status))
    await reopen(agent, key)


async def reopen(agent: Agent, key: Key) -> None:
    """The verdict that the attempt ended well."""
    with suppress(FileExistsError):
        await agent.write(runner.verdict_file(key[0]), f"ok {key[1]}\n".encode())


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
