"""Leases: which operators are alive, by Redis' own clock, and which jobs are whose.

An operator owns a job from `begin` or `adopt` on. Each gives the record a new fence: what an earlier owner still writes
is refused, however late it wakes up.
"""

from __future__ import annotations

import secrets

from dray.store import keys, scripts
from dray.store.connection import Connection, available

_ADOPTED_AT_ONCE = 100
_FORGOTTEN = 86_400  # seconds after which an operator that is gone and owns nothing is no longer known


class Leases(Connection):
    async def enlist(self, operator: str, engine: str, lease: float) -> bool:
        """It is alive for another `lease` seconds. False: its earlier lease had run out, so others may have its jobs."""
        return bool(await self._run(scripts.ENLIST, [keys.OPERATORS, keys.ENGINES], [operator, engine, round(1000 * lease)]))

    async def dismiss(self, operator: str) -> None:
        """Its lease ends now."""
        await self._run(scripts.DISMISS, [keys.OPERATORS], [operator])

    async def operators(self) -> list[str]:
        """Those alive."""
        return _texts(await self._run(scripts.ALIVE, [keys.OPERATORS], []))

    async def begin(self, operator: str, engine: str) -> str | None:
        """The first waiting job, now this operator's; None: none waits, or the operator's lease is over."""
        known = [keys.ACTIVE, keys.FENCE, keys.OPERATORS, keys.ENGINES, keys.BEGUN, keys.WAITING]
        found = await self._run(scripts.BEGIN, known, [operator, engine, keys.job(""), secrets.token_hex(8)])
        return found[0].decode() if found else None

    async def adopt(self, operator: str, engine: str, takeover: float) -> list[str]:
        """Jobs that need an operator and have none alive, now this one's: at most 100, oldest first of each owner.

        That is: nobody's; those of an operator whose lease is over and whose engine is this one; and, unless `takeover`
        is 0, those of any whose lease is over for longer than so many seconds. None where this one's own lease is over.
        """
        known = [keys.ACTIVE, keys.FENCE, keys.OPERATORS, keys.ENGINES, keys.ADOPTED, keys.WAITING, keys.BEGUN]
        args = [operator, engine, keys.job(""), secrets.token_hex(8), round(1000 * takeover), _ADOPTED_AT_ONCE, 1000 * _FORGOTTEN]
        return _texts(await self._run(scripts.ADOPT, known, args))

    async def adopt_one(self, job_id: str, operator: str, engine: str) -> bool:
        """Whether the job needs an operator and this is it: it was already, or the job was nobody's until now."""
        known = [keys.ACTIVE, keys.FENCE, keys.OPERATORS, keys.ENGINES, keys.ADOPTED, keys.WAITING]
        return bool(await self._run(scripts.ADOPT_ONE, known, [operator, engine, keys.job(""), secrets.token_hex(8), job_id]))

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
