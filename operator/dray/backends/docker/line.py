"""A line to an agent, in the engine's multiplexed stream."""

from __future__ import annotations

from dray.backends.docker.wire import Connection, settle


class Multiplexed:
    """See `dray.backends.agent.Line`."""

    def __init__(self, connection: Connection) -> None:
        self._reader, self._writer = connection

    async def read(self) -> bytes:
        """One frame: 1 byte stream, 3 bytes nothing, 4 bytes length, payload."""
        head = await self._reader.readexactly(8)
        return await self._reader.readexactly(int.from_bytes(head[4:], "big"))

    async def write(self, content: bytes) -> None:
        self._writer.write(content)
        await self._writer.drain()

    async def close(self) -> None:
        await settle(self._writer)
