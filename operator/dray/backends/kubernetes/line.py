"""A line to an agent: an exec's WebSocket, each of whose messages begins with the number of its channel."""

from __future__ import annotations

import aiohttp

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN = b"\x00"
_PIECE = 2**15  # bytes in one message


class WebSocket:
    """See `dray.backends.agent.Line`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise EOFError(f"the exec ended: {message.type.name}")
            match message.data[:1]:
                case b"\x01":
                    if len(message.data) > 1:
                        return bytes(message.data[1:])
                case b"\x03":
                    raise EOFError(f"the exec ended: {message.data[1:200].decode(errors='replace')}")

    async def write(self, content: bytes) -> None:
        for start in range(0, len(content), _PIECE):
            await self._socket.send_bytes(_STDIN + content[start : start + _PIECE])

    async def close(self) -> None:
        await self._socket.close()
