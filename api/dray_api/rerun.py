"""A job once more: from its first step, or from a later one with the input that is kept."""

from __future__ import annotations

import time
from dataclasses import replace

from dray.errors import NotFound, NotKept
from dray.outputs import Outputs
from dray.record import Job, Phase, new_job, step_label
from dray.store import SMALL_OUTPUT, IdempotencyKey, Kept, Store
from dray_api import jobs


def again(job: Job, first: int) -> Job:
    """The new job's record: what comes before step `first` is as it was. Raises NotKept where it did not end well."""
    if any(state.phase is not Phase.COMPLETE for state in job.steps[:first]):
        raise NotKept(f"{step_label(job.spec, first)} never had its input: a step before it did not complete")
    new = new_job(jobs.new_id(), job.spec, time.time_ns() // 1000)
    return replace(new, origin=job.id, pins=job.pins, steps=job.steps[:first] + new.steps[first:])


async def create(store: Store, outputs: Outputs, new: Job, first: int, key: IdempotencyKey | None) -> str:
    """Record it, with the output that step `first` reads; its id, or that of the job that the same request made before. Raises NotKept."""
    assert new.origin is not None
    source = first - 1
    try:
        if first == 0:
            return await store.create(new, key)
        if (new.steps[source].bytes_out or 0) <= SMALL_OUTPUT:
            return await store.create(new, key, Kept(new.origin, source))
        return await _with_large_output(store, outputs, new, source, key)
    except (NotKept, NotFound):
        raise NotKept(
            f"the output of {step_label(new.spec, source)} is not kept: besides a job's last output, those of up to DRAY_KEEP_OUTPUTS bytes are"
        ) from None


async def _with_large_output(store: Store, outputs: Outputs, new: Job, source: int, key: IdempotencyKey | None) -> str:
    """Copied first, so that a job that is recorded has it. Where it is not recorded after all, the copy goes."""
    made = None
    try:
        await outputs.copy(new.origin or "", new.id, source)
        made = await store.create(new, key)
    finally:
        if made != new.id:
            await outputs.remove(new.id)
    return made
