"""The shapes of the answers, for the OpenAPI document. jobs.py makes what they describe; tests hold the two together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from dray.reason import Reason, Side
from dray.record import Phase
from dray.spec import JobSpec

_TIME: dict[str, Any] = {"format": "date-time"}
Status = Literal["running", "complete", "error"]


def _sometimes(description: str) -> Any:
    """A field that is left out where it has nothing to say."""

    def without_default(schema: dict[str, Any]) -> None:
        del schema["default"]

    return Field(None, description=description, json_schema_extra=without_default)


class Posted(JobSpec):
    """The job as posted; what was empty is left out."""

    id: str
    rerunOf: str = _sometimes("only of a rerun")  # noqa: N815 (Dray's JSON)


class Listed(BaseModel):
    id: str


class Summary(BaseModel):
    id: str
    name: str
    status: Status
    createdAt: str  # noqa: N815
    finishedIn: float = _sometimes("seconds; only of a job that has ended")  # noqa: N815
    reason: Reason = _sometimes("of a job that failed")
    stepsCompleted: int  # noqa: N815
    steps: int = Field(description="how many there are")
    labels: dict[str, str]


class Attempt(BaseModel):
    """One that failed and was followed by another."""

    attempt: int
    reason: Reason
    exitCode: int | None  # noqa: N815
    startedAt: str | None = Field(json_schema_extra=_TIME)  # noqa: N815
    finishedAt: str = Field(json_schema_extra=_TIME)  # noqa: N815


class StepRecord(BaseModel):
    name: str
    source: str
    state: Phase
    attempt: int
    exitCode: int | None  # noqa: N815
    startedAt: str | None = Field(json_schema_extra=_TIME)  # noqa: N815
    finishedAt: str | None = Field(json_schema_extra=_TIME)  # noqa: N815
    bytesIn: int | None  # noqa: N815
    bytesOut: int | None  # noqa: N815
    sha256In: str | None  # noqa: N815
    sha256Out: str | None  # noqa: N815
    always: bool
    attempts: list[Attempt]
    retryAt: str = _sometimes("while it waits for another attempt: not before then")  # noqa: N815
    image: str = _sometimes("what is run instead of the source: its digest, found at the preflight")


class JobRecord(BaseModel):
    id: str
    stepsCompleted: int  # noqa: N815
    status: Status
    createdAt: str = Field(examples=["2016-06-10 16:15:23.794364 +0000 UTC"])  # noqa: N815
    finishedIn: float = _sometimes("seconds; only of a job that has ended")  # noqa: N815
    name: str
    startedAt: str | None = Field(json_schema_extra=_TIME)  # noqa: N815
    finishedAt: str | None = Field(json_schema_extra=_TIME)  # noqa: N815
    labels: dict[str, str]
    reason: Reason = _sometimes("of a job that failed, from when that is certain")
    fault: Side = _sometimes("with reason: whose it is")
    retryable: bool = _sometimes("with reason: whether another attempt can help")
    message: str = _sometimes("with reason: which step, and what happened")
    stderr: list[str] = _sometimes("with reason: the last lines of the step that failed")
    failedStep: int = _sometimes("with reason: the step that failed, counted from 1; none where the job never began")  # noqa: N815
    cancelRequested: Literal[True] = _sometimes("only while a job is being cancelled")  # noqa: N815
    held: Literal[True] = _sometimes("only while no step of it is to begin")
    rerunOf: str = _sometimes("only of a rerun: the first job's id")  # noqa: N815
    steps: list[StepRecord]


class Log(BaseModel):
    lines: list[str]


class LogLine(BaseModel):
    """The `data` of each event of a log that is followed; `id` is `seq`."""

    seq: int = Field(description="the line's number, from 0: its index")
    time: str = Field(json_schema_extra=_TIME)
    step: int = Field(description="counted from 1")
    attempt: int
    stream: Literal["stdout", "stderr", "dray"]
    line: str


class Health(BaseModel):
    status: Literal["ok"]


class ProblemField(BaseModel):
    field: str = Field(examples=["steps[0].source"])
    message: str


class Problem(BaseModel):
    """RFC 9457."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    errors: list[ProblemField] = _sometimes("only of 422")
    job: JobRecord = _sometimes("the job that failed: only of POST /filter")


MODELS = (Posted, Listed, Summary, JobRecord, Log, LogLine, Health, Problem)
REF = "#/components/schemas/{model}"


def ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": REF.format(model=model.__name__)}
