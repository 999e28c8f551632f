"""What a step reads, laid into a volume in which nothing wrote it: the output of a step that ran elsewhere, or the job's input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from dray import runner
from dray.backends.docker import archive
from dray.backends.docker.agent import Agent
from dray.backends.docker.engine import Engine, Refused
from dray.errors import Unavailable
from dray.pod import Status
from dray.record import Input, StepState

Name = tuple[int | str, int]
"""(step, attempt), or (runner.INPUT, 1)."""


async def seed(engine: Engine, agent: Agent, sandbox: str, name: Name, status: Status, content: AsyncIterator[bytes]) -> None:
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
        await _lay(engine, agent, sandbox, runner.output_file(*name), status.bytes_out, content)
    except archive.WrongSize:
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


async def _lay(engine: Engine, agent: Agent, sandbox: str, name: str, size: int, output: AsyncIterator[bytes]) -> None:
    """A small one by the agent; a large one as an archive, as it comes."""
    if size > runner.MAX_WRITE:
        try:
            await engine.lay(sandbox, runner.VOLUME_DIR, archive.stream(name, 0o644, size, output))
        except Refused as error:
            raise Unavailable(f"engine: {error}") from error
        return
    content = bytearray()
    async for block in output:
        content += block
        if len(content) > size:
            break
    if len(content) != size:
        raise archive.WrongSize(name)
    await agent.write(name, bytes(content))
