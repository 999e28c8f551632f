"""`dray reproduce`: the commands by which one step of a job is repeated by hand, with an engine of one's own."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from dray.client.api import Api, Json
from dray.client.errors import Failed
from dray.fields import millis, octets


def commands(api: Api, job_id: str, number: int, client: Sequence[str]) -> str:
    """For a POSIX shell. `client`: how to call this client, for the step's input. Raises Failed where there is no such step."""
    record, spec = api.get(job_id), api.spec(job_id)
    steps = len(record["steps"])
    if number > steps:
        raise Failed(f"job {job_id} has the steps 1 to {steps}")
    run, stdin = shlex.join(_docker(record, spec, number)), "/dev/null"
    notes, fetch = _notes(spec, number), ""
    if _reads(record, number):
        stdin = f"{job_id}-{number}.in"
        what = ["--input"] if number == 1 else ["--step", str(number - 1)]
        if api.kept(job_id, None if number == 1 else number - 1):
            fetch = f"{shlex.join([*client, 'output', job_id, *what])} >{stdin} &&\n"
        else:
            notes.append(f"its input is not kept: lay it into {stdin}, which is what `dray reproduce {job_id} {number - 1}` leads to")
    return "".join(f"# {note}\n" for note in notes) + f"{fetch}{run} <{stdin}\n"


def _reads(record: Json, number: int) -> bool:
    """Whether the step has an input."""
    step = record["steps"][number - 1]
    return not step["always"] and (number > 1 or bool(step["bytesIn"]))


def _notes(spec: Json, number: int) -> list[str]:
    """What the command alone does not tell; each one line, whatever a job says."""
    step, secrets = spec["steps"][number - 1], [name for name, value in _environment(spec, number).items() if value is None]
    notes = [f"{json.dumps(name)} is a secret: set it beforehand" for name in secrets]
    if step.get("output", "stdout") != "stdout":
        notes.append(f"the step passes on {json.dumps(step['output'])}, not its stdout")
    elif step.get("beginDelimiter") and step.get("endDelimiter"):
        notes.append(f"the step passes on only what is between {json.dumps(step['beginDelimiter'])} and {json.dumps(step['endDelimiter'])}")
    return notes


def _docker(record: Json, spec: Json, number: int) -> Iterator[str]:
    step = spec["steps"][number - 1]
    yield from ("docker", "run", "--rm", "--interactive", "--no-healthcheck")
    for name, value in (_environment(spec, number) | _place(record, number)).items():
        yield f"--env={name}" if value is None else f"--env={name}={value}"
    if step.get("workdir"):
        yield f"--workdir={step['workdir']}"
    if spec.get("network", "bridge") != "bridge":
        yield f"--network={spec['network']}"
    yield from _limits(step.get("resources") or {})
    for mount in step.get("mounts") or ():
        yield f"--mount={_mount(mount)}"
    command, args = list(step.get("command") or ()), list(step.get("args") or ())
    if command:
        yield f"--entrypoint={command[0]}"
    yield from (record["steps"][number - 1].get("image") or step["source"], *command[1:], *args)


def _environment(spec: Json, number: int) -> dict[str, str | None]:
    """None: a secret's value, which is told to nobody."""
    variables = [*(spec.get("environment") or ()), *(spec["steps"][number - 1].get("environment") or ())]
    return {variable["variable"]: variable.get("value") for variable in variables}


def _place(record: Json, number: int) -> dict[str, str | None]:
    """Dray's own variables; docs/api.md has them."""
    step = record["steps"][number - 1]
    place: dict[str, str | None] = {
        "DRAY_JOB_ID": record["id"],
        "DRAY_JOB_NAME": record["name"],
        "DRAY_STEP_INDEX": str(number),
        "DRAY_STEP_NAME": step["name"],
        "DRAY_ATTEMPT": str(step["attempt"]),
    }
    if step["always"]:
        place |= _outcome(record)
    return {name: (value or "").replace("\0", "") for name, value in place.items()}


def _outcome(record: Json) -> dict[str, str]:
    """What steps marked always are told of those before."""
    failed = record.get("failedStep")
    code = record["steps"][failed - 1]["exitCode"] if failed else None
    return {
        "DRAY_STATUS": "error" if "reason" in record else "complete",
        "DRAY_REASON": record.get("reason", ""),
        "DRAY_FAILED_STEP": "" if failed is None else str(failed),
        "DRAY_EXIT_CODE": "" if code is None else str(code),
    }


def _limits(resources: Json) -> Iterator[str]:
    if resources.get("cpu") is not None:
        yield f"--cpus={millis(resources['cpu']) / 1000:g}"
    if resources.get("memory") is not None:
        yield from (f"--memory={octets(resources['memory'])}", f"--memory-swap={octets(resources['memory'])}")
    if resources.get("pids") is not None:
        yield f"--pids-limit={resources['pids']}"


def _mount(mount: dict[str, Any]) -> str:
    """In docker's own form, a line of CSV."""
    named = mount.get("volume")
    fields = [f"type={'volume' if named else 'bind'}", f"source=dray-volume-{named}" if named else f"source={mount['hostPath']}", f"target={mount['path']}"]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, "readonly"] if mount.get("readOnly") else fields)
    return line.getvalue()
