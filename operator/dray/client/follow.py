"""A log as it grows, across a server that goes away and comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from dray.client.api import Api, Json
from dray.client.errors import Failed, Refused, Unreachable

_GIVE_UP = 60.0  # seconds without an answer
_PAUSE = 1.0  # seconds between two attempts


def follow(api: Api, job_id: str, told: Callable[[str], None]) -> Iterator[tuple[str, Json]]:
    """("message", line) for each line, once and in order, and then ("end", record): docs/api.md has their fields.

    `told` is called with what the user may want to know meanwhile. Raises Failed, also where the job was deleted.
    """
    index, lost_at = 0, None
    while True:
        try:
            with api.events(job_id, index) as events:
                for event, data in events:
                    lost_at = None
                    found: dict[str, Any] = json.loads(data)
                    if event == "deleted":
                        raise Failed(f"job {job_id} was deleted")
                    yield event, found
                    if event == "end":
                        return
                    index = found["seq"] + 1
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.status < 500:
                raise
            if lost_at is None:
                lost_at = time.monotonic()
                told(f"{error}; trying again for {_GIVE_UP:.0f} s")
            elif time.monotonic() - lost_at > _GIVE_UP:
                raise
        time.sleep(_PAUSE)
