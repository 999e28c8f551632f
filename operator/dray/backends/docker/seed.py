"""A complete step's output, laid into a volume in which the step did not run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from dray import runner
from dray.backends.docker import archive
from dray.backends.docker.agent import Agent
from dray.backends.docker.engine import Engine, Refused
from dray.errors import Unavailable
from dray.pod import Key, Status
from dray.record import StepState


async def seed(engine: Engine, agent: Agent, sandbox: str, key: Key, state: StepState, output: AsyncIterator[bytes]) -> None:
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
        await _lay(engine, agent, sandbox, key, state.bytes_out or 0, output)
    except archive.WrongSize:
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


async def _lay(engine: Engine, agent: Agent, sandbox: str, key: Key, size: int, output: AsyncIterator[bytes]) -> None:
    """A small one by the agent; a large one as an archive, as it comes."""
    name = runner.output_file(*key)
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
