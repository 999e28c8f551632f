"""A job once more: from its first step, or from a later one with the input that is kept."""

from __future__ import annotations

from dataclasses import replace

from dray.clock import microseconds
from dray.errors import NotFound, NotKept
from dray.outputs import Outputs
from dray.record import INPUT, Job, Phase, new_job, step_label
from dray.store import SMALL_OUTPUT, IdempotencyKey, Kept, Laid, Store
from dray_api import jobs
from dray_api.uploads import uploaded


def again(job: Job, first: int) -> Job:
    """The new job's record: what comes before step `first` is as it was. Raises NotKept where it did not end well."""
    if any(state.phase is not Phase.COMPLETE for state in job.steps[:first]):
        raise NotKept(f"{step_label(job.spec, first)} never had its input: a step before it did not complete")
    new = new_job(jobs.new_id(), job.spec, microseconds())
    return replace(new, origin=job.id, pins=job.pins, steps=job.steps[:first] + new.steps[first:], input=job.input)


async def create(store: Store, outputs: Outputs, new: Job, first: int, key: IdempotencyKey | None) -> str:
    """Record it, with a copy of what step `first` reads and of the job's input; its id, or that of the job that the same request made before.

    The input in any case: where another engine goes on with the job it may begin anew. Raises NotKept.
    """
    assert new.origin is not None
    sizes: dict[int | str, int] = {} if new.input is None else {INPUT: new.input.size}
    if first > 0:
        sizes[first - 1] = new.steps[first - 1].bytes_out or 0
    small = Kept(new.origin, tuple(name for name, size in sizes.items() if size <= SMALL_OUTPUT))
    large = [name for name in sizes if name not in small.names]
    try:
        if not large:
            return await store.create(new, key, Laid(small))
        async with uploaded(store, outputs, new.id) as upload:
            for name in large:
                await outputs.copy(new.origin, new.id, name)
            upload.made = await store.create(new, key, Laid(small, uploaded=True))
        return upload.made
    except (NotKept, NotFound):
        raise NotKept(_not_kept(new, first)) from None


def _not_kept(new: Job, first: int) -> str:
    if first == 0:
        return "the job's input is not kept, or not in the output store that this API was given (DRAY_OUTPUTS)"
    return f"the output of {step_label(new.spec, first - 1)} is not kept: besides a job's last output, those of up to DRAY_KEEP_OUTPUTS bytes are"
