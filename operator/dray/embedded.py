"""A Redis of `dray serve`'s own: a real redis-server on a Unix socket in the data directory, started, watched, restarted, stopped.

Its append-only file is synced before each reply (`appendfsync always`): what was acknowledged survives any kill. One
server at a time works on a data directory: a lock, held by this process and handed on to the server, says so even when
one of the two was killed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
from pathlib import Path

from dray.children import end_with_parent
from dray.errors import BadSetting, Unavailable
from dray.store import Store
from dray.tasks import end

log = logging.getLogger(__name__)
_SOCKET_PATH_MAX = 107  # bytes, of sockaddr_un
_LOCK_WITHIN, _READY_WITHIN, _STOP_WITHIN = 15.0, 120.0, 15.0  # seconds
_PAUSE = 0.5  # seconds before a server that died is started again


class RedisServer:
    """`async with` starts and stops it; `url` is where it answers."""

    def __init__(self, data_dir: Path) -> None:
        self._socket = socket_in(data_dir)
        self._dir = self._socket.parent
        self._program = shutil.which("redis-server")
        if self._program is None:
            raise BadSetting("redis-server is not installed (Debian: apt install redis-server); or set REDIS_URL to a Redis that runs")
        self.url = f"unix://{self._socket}"
        self._lock = -1
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> RedisServer:
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = await self._locked()
        await self._start()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._watching)
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_WITHIN)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        os.close(self._lock)

    async def _locked(self) -> int:
        lock = os.open(self._dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline, told = asyncio.get_running_loop().time() + _LOCK_WITHIN, False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    os.close(lock)
                    raise BadSetting(f"--data-dir {self._dir.parent} is in use by another dray serve") from None
            if not told:
                log.info("waiting up to %.0f s for another dray serve on %s to end", _LOCK_WITHIN, self._dir.parent)
                told = True
            await asyncio.sleep(0.05)

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            str(self._program),
            *self._arguments(),
            pass_fds=(self._lock,),
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us alone: it is needed until all others have ended
            preexec_fn=end_with_parent(),
        )
        store, deadline = Store(self.url), asyncio.get_running_loop().time() + _READY_WITHIN
        try:
            while not await _answers(store):
                if self._process.returncode is not None:
                    raise BadSetting(f"redis-server ended at once, see {self._dir / 'redis.log'}")
                if asyncio.get_running_loop().time() > deadline:
                    raise BadSetting(f"redis-server did not answer within {_READY_WITHIN:.0f} s, see {self._dir / 'redis.log'}")
                await asyncio.sleep(0.01)
        finally:
            await store.close()

    def _arguments(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._dir),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "logfile": str(self._dir / "redis.log"),
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    async def _watch(self) -> None:
        while self._process is not None:
            code = await self._process.wait()
            log.error("redis-server ended with %s: starting it again", code)
            await asyncio.sleep(_PAUSE)
            try:
                await self._start()
            except BadSetting as error:
                log.error("%s", error)


def socket_in(data_dir: Path) -> Path:
    """Where it answers. Raises BadSetting where that is too long a path."""
    found = data_dir.absolute() / "redis" / "redis.sock"
    if len(os.fsencode(found)) > _SOCKET_PATH_MAX:
        raise BadSetting(f"{found} has more than {_SOCKET_PATH_MAX} bytes, too long for Redis's socket: name a shorter --data-dir, or DRAY_DATA_DIR")
    return found


async def _answers(store: Store) -> bool:
    try:
        await store.ping()
    except Unavailable:
        return False
    return True
