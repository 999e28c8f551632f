"""How an attempt that had begun has ended, by what its box shows. No I/O.

A claim was written just before the command was executed, a status after its output was complete. The status stands in the
job's own volume, where a step can write too: so it counts only together with the same exit code from the engine.
"""

from __future__ import annotations

from dray.pod import Box, Fault, Stage
from dray.reason import Reason

MEANING = {
    "no claim": "has not begun: its container is made again if it is gone",
    "no claim, and an exit code that no gate has": "lost: it removed what it had noted",
    "claim, container running": "runs",
    "claim, no status, container gone": "lost; out_of_memory where the engine says so",
    "claim and status, no container to ask": "lost",
    "claim and status, the engine killed it or did not see its end": "lost",
    "claim and status, the engine reports another exit code": "status_mismatch",
    "claim and status 0, the engine agrees": "complete",
    "claim and another status, the engine agrees": "the status's reason: exit_code, timed_out, out_of_memory, output_missing, …",
}
"""What a box shows of an attempt → what that means."""


_LOST_TRACK = (None, 137, 255)
"""What an engine reports of a container whose end it did not see (255: Docker after a restart) or that it killed."""


def judge(box: Box) -> Fault | None:
    """How a begun attempt whose container no longer runs has ended; None: well."""
    status = box.status
    if status is None and box.oom:
        return Fault(Reason.OUT_OF_MEMORY, "the engine killed the whole step for memory")
    if status is None:
        return Fault(Reason.LOST, "its container ended without a status" if box.stage is Stage.ENDED else "its container is gone")
    if box.stage is not Stage.ENDED:
        return Fault(Reason.LOST, "its container is gone before the engine could confirm its exit code")
    if box.code != status.exit:
        reason = Reason.LOST if box.code in _LOST_TRACK else Reason.STATUS_MISMATCH
        return Fault(reason, f"the runner noted exit code {status.exit}, the engine {box.code}")
    if status.error:
        reason, words = _RUNNER_ERRORS.get(status.error, (Reason.STATUS_MISMATCH, "its status is not one the runner writes"))
        return Fault(reason, words.format(errno=status.errno))
    if status.exit == 0:
        return None
    if box.oom:
        return Fault(Reason.OUT_OF_MEMORY, "the engine killed a process of the step for memory")
    how = f"killed by signal {status.signal}" if status.signal else f"exit code {status.code}"
    return Fault(Reason.EXIT_CODE, how)


_RUNNER_ERRORS = {
    "exec": (Reason.START_FAILED, "the image's command could not be executed (errno {errno})"),
    "input": (Reason.INPUT_DAMAGED, "the output of the step before is not what it was when it ended"),
    "output_missing": (Reason.OUTPUT_MISSING, "the output file was removed or is no regular file (errno {errno})"),
    "data_limit": (Reason.DATA_LIMIT, "the job's outputs together passed the cap on a job's data"),
    "disk_floor": (Reason.DISK_FULL, "free disk space fell below the floor kept on the engine"),
    "write": (Reason.DISK_FULL, "output or log could not be written (errno {errno})"),
    "timed_out": (Reason.TIMED_OUT, "it took longer than its timeout"),
    "cancelled": (Reason.CANCELLED, "the job was cancelled"),
}
