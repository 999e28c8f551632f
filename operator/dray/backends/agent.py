"""The agent: the runner, executed in a job's sandbox, that tells of the volume and reads it. docs/protocol.md has its words.

One for each open pod, kept as long as the pod is worked on. When this process dies the engine closes the agent's stdin
and it ends. How its stdin and stdout come here is the backend's business: a `Line`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from dray.errors import Unavailable
from dray.tasks import end

log = logging.getLogger(__name__)
_ANSWER_WITHIN = 60  # seconds
_REFUSALS: dict[int, type[Exception]] = {errno.ENOENT: FileNotFoundError, errno.EEXIST: FileExistsError, errno.EACCES: PermissionError}


class Line(Protocol):
    """An agent's stdin and stdout."""

    async def read(self) -> bytes:
        """Bytes as they come. Raises OSError, EOFError or ValueError when no more will."""

    async def write(self, content: bytes) -> None:
        """All of it. Raises OSError where nobody takes it."""

    async def close(self) -> None: ...


class Agent:
    """A conversation with one sandbox. `changed` is called once when something changed after the last `look`."""

    def __init__(self, line: Line, changed: Callable[[], None]) -> None:
        self.changed = changed
        self._line = line
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._buffer = bytearray()
        self._listening = asyncio.create_task(self._listen())

    @property
    def alive(self) -> bool:
        return not self._listening.done()

    async def look(self) -> bytes:
        """The listing of the volume, and from now on one call of `changed`."""
        return await self._ask("look")

    async def read(self, name: str, offset: int, size: int) -> bytes:
        """Up to `size` bytes; empty at the file's end. Raises FileNotFoundError, and PermissionError where a step shut it to the agent."""
        return await self._ask(f"read {name} {offset} {size}")

    async def write(self, name: str, content: bytes) -> None:
        """A file of up to MAX_WRITE bytes, complete and once: raises FileExistsError where there is one."""
        await self._ask(f"write {name} {len(content)}", content)

    async def append(self, name: str, offset: int, content: bytes) -> None:
        """Bytes of a larger file, in the making until `finish`; from 0 on it begins anew. Raises FileExistsError."""
        await self._ask(f"append {name} {offset} {len(content)}", content)

    async def finish(self, name: str, size: int) -> None:
        """The file that was appended to is there, complete. Raises FileExistsError."""
        await self._ask(f"finish {name} {size}")

    async def drop(self, name: str) -> None:
        """Gone already is fine."""
        with suppress(FileNotFoundError):
            await self._ask(f"drop {name}")

    async def close(self) -> None:
        await end(self._listening)

    async def _ask(self, request: str, content: bytes = b"") -> bytes:
        if not self.alive:
            raise Unavailable("engine: the sandbox's agent has ended")
        self._number += 1
        number = self._number
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            await self._line.write(f"{number} {request}\n".encode() + content)
            return await asyncio.wait_for(answer, _ANSWER_WITHIN)
        except (FileNotFoundError, FileExistsError, PermissionError):
            raise
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"engine: the sandbox's agent does not answer: {error}") from error
        finally:
            self._asked.pop(number, None)

    async def _listen(self) -> None:
        try:
            while True:
                await self._answer(await self._read_line())
        except (OSError, EOFError, ValueError) as error:
            log.debug("agent ended: %s", error)
        finally:
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(Unavailable("engine: the sandbox's agent has ended"))
            await self._line.close()
            self.changed()

    async def _answer(self, line: bytes) -> None:
        number, size = (int(word) for word in line.split())
        if number == 0:
            return self.changed()
        body = await self._take(size) if size > 0 else b""
        answer = self._asked.get(number)
        if answer is None or answer.done():
            return None
        if size < 0:
            answer.set_exception(_REFUSALS.get(-size, Unavailable)(f"engine: agent: {os.strerror(-size)}"))
        else:
            answer.set_result(body)
        return None

    async def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            self._buffer += await self._line.read()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._buffer += await self._line.read()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
