"""The verbs on DrayJobs, as they are typed. docs/client.md tells of them."""

from __future__ import annotations

import os
import sys
import time
from queue import Empty, SimpleQueue
from typing import Annotated

import typer

from dray.cli.kubectl import forms
from dray.cli.kubectl.objects import DrayJobs
from dray.client import app as client
from dray.client import config, jobfile, show, watch
from dray.client.api import Api, Json
from dray.client.app import File, Output, Steps, show_log, tell, tell_of_more
from dray.client.errors import Failed
from dray.client.show import Form

PROGRAM = "kubectl dray"
_LOOK = 0.5  # seconds between two looks at an object
_ODD = 10  # seconds until it is told what is waited for
_SETTLED = 10  # seconds for the status to follow the record

app = typer.Typer(
    name=PROGRAM,
    help="Run DrayJobs: jobs in a cluster, made of container steps. Logs and outputs come from Dray's API, at DRAY_SERVER.",
    add_completion=False,  # kubectl asks plugins for it in another way
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="of the DrayJob")]
Context = Annotated[str | None, typer.Option("--context", help="of the kubeconfig (its current one)", show_default=False)]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="of the DrayJob (the context's)", show_default=False)]


@app.command()
def run(
    file: File = None,
    step: Steps = None,
    output: Annotated[Form | None, typer.Option("--output", "-o", help="the DrayJob instead of its output")] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Make a DrayJob and wait for its end.

    The exit code is that of the step that failed. Ctrl-C cancels it.
    """
    try:
        jobs, connection = DrayJobs(context, namespace), _connection()
        raise typer.Exit(_run(jobs, connection, _body(jobs, file, step, namespace), output))
    except Failed as error:
        client.tell_failure(error, PROGRAM)
        raise typer.Exit(watch.DRAY) from None


def _run(jobs: DrayJobs, connection: config.Connection, body: Json, form: Form | None) -> int:
    api, news = Api(connection), SimpleQueue[watch.News]()
    with watch.interrupts(news):
        name = jobs.create(body)["metadata"]["name"]
        tell(forms.reference({"metadata": {"name": name}}))
        job_id = _begun(jobs, name, news)
        if job_id is None:
            return watch.CANCELLED
        record = watch.Watch(api, news, job_id).until_end(Api(connection))
    if record["status"] == "error":
        tell(f"{PROGRAM}: {record.get('message') or 'the job failed'}")
    if form is not None:
        _show(_settled(jobs, name), form)
    elif record["status"] == "complete" and not sys.stdout.isatty():
        show.octets(api.output(job_id, None))
    return watch.exit_code(record)


@app.command()
def submit(file: File = None, step: Steps = None, output: Output = Form.NAME, namespace: Namespace = None, context: Context = None) -> None:
    """Make a DrayJob and print its name, without waiting for it."""
    jobs = DrayJobs(context, namespace)
    _show(jobs.create(_body(jobs, file, step, namespace)), output)


@app.command("ls")
def list_jobs(  # noqa: PLR0913, PLR0917 (one for each option that can be typed)
    status: Annotated[str | None, typer.Option(help="waiting, suspended, running, complete, error or invalid")] = None,
    selector: Annotated[str | None, typer.Option("--selector", "-l", metavar="LABELS", help="of the objects, such as team=a,stage!=test")] = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="of all namespaces")] = False,
    limit: Annotated[int, typer.Option(min=1, help="DrayJobs at most")] = 100,
    output: Output = Form.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List DrayJobs, newest first."""
    found = DrayJobs(context, namespace).list(everywhere, selector)
    found = [one for one in found if status in (None, one.get("status", {}).get("status"))]
    found.sort(key=lambda one: str(one["metadata"]["creationTimestamp"]), reverse=True)
    match output:
        case Form.TABLE:
            show.jobs([forms.summary(one, everywhere) for one in found[:limit]], output)
        case Form.NAME:
            for one in found[:limit]:
                show.line(forms.reference(one))
        case _:
            show.plain({"apiVersion": "v1", "kind": "List", "items": found[:limit]}, output)
    if len(found) > limit:
        tell_of_more(limit)


@app.command()
def get(name: Name, output: Output = Form.TABLE, namespace: Namespace = None, context: Context = None) -> None:
    """Show how far a DrayJob is."""
    _show(DrayJobs(context, namespace).get(_bare(name)), output)


@app.command()
def logs(
    name: Name,
    wait: Annotated[bool, typer.Option("--follow", "-f", help="go on until the job has ended")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the lines that a DrayJob's steps wrote."""
    api, job_id = _job(name, namespace, context)
    show_log(api, job_id, wait)


@app.command()
def output(
    name: Name,
    step: Annotated[int | None, typer.Option(min=1, help="of this step, not of the last")] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print what a DrayJob's last step passed on, byte for byte."""
    api, job_id = _job(name, namespace, context)
    show.octets(api.output(job_id, step))


@app.command()
def cancel(
    name: Name,
    always: Annotated[bool, typer.Option("--always", help="also steps that always run")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Stop a DrayJob's job.

    The object stays.
    """
    api, job_id = _job(name, namespace, context)
    record = api.cancel(job_id, always)
    tell(f"DrayJob {_bare(name)} {'is being stopped' if record['status'] == 'running' else 'has ended'}")


@app.command()
def rerun(name: Name, output: Output = Form.NAME, namespace: Namespace = None, context: Context = None) -> None:
    """Make a DrayJob that does the same once more, and print its name."""
    jobs = DrayJobs(context, namespace)
    _show(jobs.create(forms.again(jobs.get(_bare(name)))), output)


@app.command("rm")
def remove(names: Annotated[list[str], typer.Argument(metavar="NAME", help="of the DrayJobs")], namespace: Namespace = None, context: Context = None) -> None:
    """Delete DrayJobs, with their jobs' logs and outputs.

    What runs is stopped.
    """
    jobs = DrayJobs(context, namespace)
    for name in names:
        jobs.delete(_bare(name))


@app.command()
def doctor(namespace: Namespace = None, context: Context = None) -> None:
    """Tell what of the cluster, or of Dray's API, keeps these verbs from working, and how to mend it."""
    from dray.cli.kubectl import doctor  # noqa: PLC0415 (it loads what serves)

    raise typer.Exit(doctor.main(namespace, context, _connection))


def main(words: list[str]) -> int:
    return client.main(words, app, PROGRAM)


# --- a DrayJob and its job


def _body(jobs: DrayJobs, file: str | None, step: list[str] | None, namespace: str | None) -> Json:
    """What to create. A namespace that the file names counts."""
    body = forms.body(jobfile.read(file, step or []), namespace)
    jobs.enter(body["metadata"].get("namespace"))
    return body


def _begun(jobs: DrayJobs, name: str, news: SimpleQueue[watch.News]) -> str | None:
    """Its job's id, once there is one; None: the user would not wait. Raises Failed where there will never be one."""
    since, told = time.monotonic(), False
    while True:
        status = jobs.get(name).get("status") or {}
        if status.get("jobID"):
            return str(status["jobID"])
        if problem := forms.message(status):
            raise Failed(f"DrayJob {name}: {problem}")
        if not told and time.monotonic() - since > _ODD:
            told = True
            tell("it is suspended" if status.get("status") == "suspended" else "no operator has taken it yet: is there a dray operator --kubernetes?")
        try:
            stopped = news.get(timeout=_LOOK)
        except Empty:
            continue
        job_id = (jobs.get(name).get("status") or {}).get("jobID")
        if job_id:  # it began meanwhile: then it is cancelled, as any that runs
            news.put(stopped)
            return str(job_id)
        jobs.delete(name)
        return None


def _settled(jobs: DrayJobs, name: str) -> Json:
    """The object, once its status tells of the end; as it is, where that does not come."""
    until = time.monotonic() + _SETTLED
    while True:
        found = jobs.get(name)
        if "completionTime" in (found.get("status") or {}) or time.monotonic() > until:
            return found
        time.sleep(_LOOK)


def _job(name: str, namespace: str | None, context: str | None) -> tuple[Api, str]:
    """Its job, and where to ask for it. Raises Failed, BadSetting."""
    jobs = DrayJobs(context, namespace)
    status = jobs.get(_bare(name)).get("status") or {}
    if "jobID" not in status:
        raise Failed(f"DrayJob {_bare(name)} has no job{': ' if forms.message(status) else ' yet'}{forms.message(status)}")
    return Api(_connection()), str(status["jobID"])


def _connection() -> config.Connection:
    found = config.find(os.environ)
    if found.warning:
        tell(f"{PROGRAM}: {found.warning}")
    return found


def _show(found: Json, form: Form) -> None:
    match form:
        case Form.TABLE:
            show.job(forms.record(found), form)
        case Form.NAME:
            show.line(forms.reference(found))
        case _:
            show.plain(found, form)


def _bare(name: str) -> str:
    """kubectl's own form is taken too: `drayjob/words`."""
    kind, slash, bare = name.partition("/")
    return bare if slash and kind.partition(".")[0] in ("drayjob", "drayjobs", "dj") else name
