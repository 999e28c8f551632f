"""Why a step or a job ended in error: one fixed list, the same words on every backend. docs/api.md has it as a table.

Each says whose fault it is, the user's (the job, its images, its data) or the infrastructure's (the engine, the disk,
the operator's host), and whether another attempt can help: only then are a step's retries used.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    EXIT_CODE = "exit_code"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out_of_memory"
    IMAGE_NOT_FOUND = "image_not_found"
    IMAGE_PULL_FAILED = "image_pull_failed"
    IMAGE_NOT_ALLOWED = "image_not_allowed"
    MOUNT_NOT_ALLOWED = "mount_not_allowed"
    RESOURCES_NOT_ALLOWED = "resources_not_allowed"
    SECRET_NOT_FOUND = "secret_not_found"  # noqa: S105
    START_FAILED = "start_failed"
    OUTPUT_MISSING = "output_missing"
    DATA_LIMIT = "data_limit"
    DISK_FULL = "disk_full"
    INPUT_DAMAGED = "input_damaged"
    STATUS_MISMATCH = "status_mismatch"
    UNSCHEDULABLE = "unschedulable"
    EVICTED = "evicted"
    NOT_SUPPORTED = "not_supported"
    LOST = "lost"


class Side(StrEnum):
    """Whose fault it is."""

    USER = "user"
    INFRASTRUCTURE = "infrastructure"


class Meaning(NamedTuple):
    side: Side
    again: bool  # whether another attempt can help
    text: str


MEANINGS: dict[Reason, Meaning] = {
    Reason.EXIT_CODE: Meaning(Side.USER, True, "the command ended with another exit code than 0, or by a signal"),
    Reason.TIMED_OUT: Meaning(Side.USER, True, "the step, or the job, took longer than its timeout"),
    Reason.CANCELLED: Meaning(Side.USER, False, "a client cancelled the job"),
    Reason.OUT_OF_MEMORY: Meaning(Side.USER, True, "the engine killed a process of the step for memory"),
    Reason.IMAGE_NOT_FOUND: Meaning(Side.USER, False, "no registry has the image, or not for this login"),
    Reason.IMAGE_PULL_FAILED: Meaning(Side.INFRASTRUCTURE, True, "the registry, or the way to it, failed three times"),
    Reason.IMAGE_NOT_ALLOWED: Meaning(Side.USER, False, "the operator's settings do not allow the image"),
    Reason.MOUNT_NOT_ALLOWED: Meaning(Side.USER, False, "the operator's settings do not allow the host's path"),
    Reason.RESOURCES_NOT_ALLOWED: Meaning(Side.USER, False, "the step asks for more than the operator's settings allow"),
    Reason.SECRET_NOT_FOUND: Meaning(Side.USER, False, "the operator has no secret of that name"),
    Reason.START_FAILED: Meaning(Side.USER, False, "the engine would not start the container, or the command could not be executed"),
    Reason.OUTPUT_MISSING: Meaning(Side.USER, False, "the step left no such output file, or its output was changed after its end"),
    Reason.DATA_LIMIT: Meaning(Side.USER, False, "the job's outputs together passed the cap on a job's data"),
    Reason.DISK_FULL: Meaning(Side.INFRASTRUCTURE, True, "the engine's disk is full, or nearly so"),
    Reason.INPUT_DAMAGED: Meaning(Side.INFRASTRUCTURE, False, "the output of the step before, or the input of the job, is no longer what it was"),
    Reason.STATUS_MISMATCH: Meaning(Side.INFRASTRUCTURE, False, "the step's own account of its end and the engine's differ"),
    Reason.UNSCHEDULABLE: Meaning(Side.INFRASTRUCTURE, True, "the cluster did not bring the job's pod up in the time it is given"),
    Reason.EVICTED: Meaning(Side.INFRASTRUCTURE, True, "the cluster took the job's pod from its node, and the command or its output with it"),
    Reason.NOT_SUPPORTED: Meaning(Side.USER, False, "the backend cannot do what the job asks for"),
    Reason.LOST: Meaning(Side.INFRASTRUCTURE, True, "the container, its engine or its volume went away while the command ran"),
}
