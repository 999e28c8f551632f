"""One replica at a time deals with objects: a Lease of the cluster's says which.

What it protects from is only work done twice. Two that both lead for a moment do no harm: a job is recorded once under
its object's uid, and the engine's own leases, in Redis, say who runs it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from dray.cluster import Absent, Cluster, Conflict, Refused
from dray.errors import Unavailable

log = logging.getLogger(__name__)
LASTS = 15  # seconds without a renewal after which another replica takes it
_RENEW = 3.0  # seconds between renewals
_GIVE_UP = 10.0  # seconds without a renewal after which its holder no longer takes it for its own


class Lease:
    def __init__(self, cluster: Cluster, name: str, holder: str) -> None:
        self._cluster, self._holder, self._name = cluster, holder, name
        self._all = f"/apis/coordination.k8s.io/v1/namespaces/{cluster.namespace}/leases"
        self._seen: tuple[Any, float] = (None, 0.0)  # as another holds it, and since when we see it so

    async def acquire(self) -> None:
        """Once it is ours."""
        while True:
            if await self._try():
                return
            await asyncio.sleep(_RENEW)

    async def keep(self) -> None:
        """As long as it is ours."""
        renewed = time.monotonic()
        while time.monotonic() < renewed + _GIVE_UP:
            await asyncio.sleep(_RENEW)
            asked = time.monotonic()
            try:
                if not await asyncio.to_thread(self._take):
                    return
                renewed = asked
            except Unavailable as error:
                log.warning("renewing the lease: %s", error)

    async def release(self) -> None:
        """So that the next replica need not wait."""
        with suppress(Unavailable, Conflict, Absent, Refused):
            await asyncio.to_thread(self._release)

    async def _try(self) -> bool:
        try:
            return await asyncio.to_thread(self._take)
        except Unavailable as error:
            log.warning("asking for the lease: %s", error)
        except Refused as error:
            log.error("the API server refuses the lease %s (%d): see the operator's permissions", self._name, error.status)
        return False

    def _take(self) -> bool:
        """Take or renew it; False: it is another's."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._holder, "leaseDurationSeconds": LASTS, "renewTime": now}
        try:
            found = self._cluster.get(f"{self._all}/{self._name}")
            holder = found.get("spec", {}).get("holderIdentity")
            if holder not in (None, "", self._holder) and not self._ran_out(found["spec"]):
                return False
            if holder != self._holder:
                spec |= {"acquireTime": now, "leaseTransitions": found.get("spec", {}).get("leaseTransitions", 0) + 1}
            self._cluster.replace(f"{self._all}/{self._name}", found | {"spec": found.get("spec", {}) | spec})
        except Absent:
            return self._make(spec | {"acquireTime": now})
        except Conflict:
            return False
        return True

    def _make(self, spec: dict[str, Any]) -> bool:
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}, "spec": spec}
        try:
            self._cluster.create(self._all, body)
        except Conflict:
            return False
        return True

    def _ran_out(self, spec: dict[str, Any]) -> bool:
        """By our own clock alone: its holder has not renewed it for as long as we have looked."""
        mark = (spec["holderIdentity"], spec.get("renewTime"))
        if self._seen[0] != mark:
            self._seen = (mark, time.monotonic())
        return time.monotonic() >= self._seen[1] + float(spec.get("leaseDurationSeconds", LASTS))

    def _release(self) -> None:
        found = self._cluster.get(f"{self._all}/{self._name}")
        if found["spec"].get("holderIdentity") == self._holder:
            self._cluster.replace(f"{self._all}/{self._name}", found | {"spec": found["spec"] | {"holderIdentity": ""}})
