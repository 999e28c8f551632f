"""Leases: which operators are alive, by Redis' own clock, and which jobs are whose.

An operator owns a job from `begin` or `adopt` on. Each gives the record a new fence: what an earlier owner still writes
is refused, however late it wakes up.
"""

from __future__ import annotations

import secrets

from dray.settings import Runs
from dray.store import keys
from dray.store.connection import Connection, available
from dray.store.scripts import leases as scripts

_ADOPTED_AT_ONCE = 100
_FORGOTTEN = 86_400  # seconds after which an operator that is gone and owns nothing is no longer known
_KNOWN = (keys.ACTIVE, keys.FENCE, keys.OPERATORS, keys.ENGINES, keys.BACKENDS)


class Leases(Connection):
    async def enlist(self, operator: str, engine: str, lease: float, backend: Runs = Runs.DOCKER) -> bool:
        """It is alive for another `lease` seconds. False: its earlier lease had run out, so others may have its jobs."""
        known = [keys.OPERATORS, keys.ENGINES, keys.BACKENDS]
        return bool(await self._run(scripts.ENLIST, known, [operator, engine, backend, round(1000 * lease)]))

    async def dismiss(self, operator: str) -> None:
        """Its lease ends now."""
        await self._run(scripts.DISMISS, [keys.OPERATORS], [operator])

    async def operators(self, backend: str | None = None) -> list[str]:
        """Those alive, of any backend or of that one."""
        return _texts(await self._run(scripts.ALIVE, [keys.OPERATORS, keys.BACKENDS], [backend or ""]))

    async def begin(self, operator: str, engine: str) -> str | None:
        """The first job that waits for any backend or for its own, now this operator's; None: none does, or the operator's lease is over."""
        found = await self._run(scripts.BEGIN, [*_KNOWN, keys.BEGUN, keys.waiting(None)], [operator, engine, keys.job(""), secrets.token_hex(8)])
        return found[0].decode() if found else None

    async def adopt(self, operator: str, engine: str, takeover: float) -> list[str]:
        """Jobs that need an operator and have none alive, now this one's: at most 100, oldest first of each owner.

        That is: nobody's; those of an operator whose lease is over and whose engine is this one; and, unless `takeover`
        is 0, those of any whose lease is over for longer than so many seconds. None that another operator began and that
        names another backend; none where this one's own lease is over.
        """
        args = [operator, engine, keys.job(""), secrets.token_hex(8), round(1000 * takeover), _ADOPTED_AT_ONCE, 1000 * _FORGOTTEN]
        return _texts(await self._run(scripts.ADOPT, [*_KNOWN, keys.ADOPTED, keys.BEGUN], args))

    async def adopt_one(self, job_id: str, operator: str, engine: str) -> bool:
        """Whether the job needs an operator and this is it: it was already, or the job was nobody's until now."""
        args = [operator, engine, keys.job(""), secrets.token_hex(8), job_id]
        return bool(await self._run(scripts.ADOPT_ONE, [*_KNOWN, keys.ADOPTED], args))

    @available
    async def mine(self, operator: str) -> list[str]:
        """The jobs that it owns and that need it, oldest first."""
        return _texts(await self._redis.zrange(keys.active(operator), 0, -1))

    async def active(self, engine: str) -> dict[str, str | None]:
        """The jobs that may have something on that engine, each with the name of its pod (None: none is recorded).

        Those of its operators, alive or not, and those of nobody.
        """
        found = await self._run(scripts.ACTIVE, [keys.ACTIVE, keys.ENGINES], [engine, keys.job("")])
        return {job_id.decode(): pod.decode() or None for job_id, pod in found}


def _texts(found: list[bytes]) -> list[str]:
    return [raw.decode() for raw in found]
