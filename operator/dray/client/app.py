"""The verbs, as they are typed. docs/client.md tells of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from importlib.metadata import version
from queue import SimpleQueue
from typing import Annotated

import typer

from dray.client import config, jobfile, local, reproduce, show, stdin, watch
from dray.client.api import Api, Json
from dray.client.dropped import dropped
from dray.client.errors import Failed, Unreachable
from dray.client.follow import follow
from dray.client.show import Form
from dray.client.text import shown
from dray.errors import BadSetting

app = typer.Typer(
    name="dray",
    help="Run jobs made of container steps: the output of each is the input of the next.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Id = Annotated[str, typer.Argument(metavar="ID", help="of the job")]
Output = Annotated[Form, typer.Option("--output", "-o", help="what is printed on stdout")]
File = Annotated[str | None, typer.Argument(metavar="FILE", help="the job in JSON or YAML; - is stdin", show_default=False)]
Steps = Annotated[
    list[str] | None, typer.Option("--step", metavar='"IMAGE [COMMAND…]"', help="a step, split into words as a shell does; again for the next one")
]


def tell(text: str) -> None:
    """On stderr."""
    print(shown(text, sys.stderr, keep="\t\n"), file=sys.stderr)


def show_log(api: Api, job_id: str, wait: bool) -> None:
    """The lines of a job's log; `wait`: until the job has ended."""
    if not wait:
        for text in api.lines(job_id):
            show.line(text)
        return
    for event, found in follow(api, job_id, tell):
        if event == "message":
            show.line(found["line"])
            sys.stdout.flush()


def tell_failure(error: Failed, program: str = "dray") -> None:
    advice = [f"is dray serve running there? {program} doctor tells more"] if isinstance(error, Unreachable) else []
    tell("\n  ".join([f"{program}: {error}", *error.lines, *advice]))


def tell_of_more(limit: int) -> None:
    """That a list is not the whole."""
    tell(f"only the newest {limit} are shown: --limit shows more")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dray {version('dray')}")
        raise typer.Exit


@app.callback()
def connect(
    context: typer.Context,
    server: Annotated[str | None, typer.Option(metavar="URL", help=f"of Dray's API (DRAY_SERVER, or {config.DEFAULT})")] = None,
    token: Annotated[str | None, typer.Option(metavar="TOKEN", help="others may see it here: rather set DRAY_TOKEN")] = None,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="show it and leave")] = False,
) -> None:
    """Which server; asked for only by the verbs that need one."""

    def connection() -> config.Connection:
        found = config.find(os.environ, server, token)
        if found.warning:
            tell(f"dray: {found.warning}")
        return found

    context.obj = connection


def _api(context: typer.Context) -> Api:
    """Raises BadSetting."""
    return Api(context.obj())


@app.command()
def run(
    context: typer.Context,
    file: File = None,
    step: Steps = None,
    output: Annotated[Form | None, typer.Option("--output", "-o", help="the job's record instead of its output")] = None,
    alone: Annotated[bool, typer.Option("--local", help="on a Dray of its own that ends with the job: no server is needed, but an engine")] = False,
) -> None:
    """Run a job and wait for its end.

    The exit code is that of the step that failed. Ctrl-C cancels the job. What is piped in is the input of its first step.
    """
    try:
        job = jobfile.read(file, step or [])
        with local.server() if alone else nullcontext(context.obj()) as connection:
            raise typer.Exit(_run(connection, job, output, file != "-"))
    except Failed as error:
        tell_failure(error)
        raise typer.Exit(watch.DRAY) from None


def _run(connection: config.Connection, job: bytes, form: Form | None, fed: bool) -> int:
    """`fed`: stdin is not the job itself."""
    api, news = Api(connection), SimpleQueue[watch.News]()
    with ExitStack() as stack:
        made = _posted(api, job, fed and stdin.piped(), lambda: stack.enter_context(watch.interrupts(news)))
        job_id = made["id"]
        tell(f"job {job_id}")
        _tell_dropped(job, made)
        record = watch.Watch(api, news, job_id).until_end(Api(connection))
    if record["status"] == "error":
        tell(f"dray: {record.get('message') or 'the job failed'}")
    if form is not None:
        show.job(record, form)
    elif record["status"] == "complete" and not sys.stdout.isatty():
        show.octets(api.output(job_id, None))
    return watch.exit_code(record)


def _posted(api: Api, job: bytes, piped: bool, hear: Callable[[], object]) -> Json:
    """The job as it was made, with what is piped in. `hear`: from now on Ctrl-C cancels it; while its input comes there is none."""
    found = stdin.blocks(tell)
    begun = stdin.begin(found) if piped else b""
    if not begun or not jobfile.is_json(job):  # of what is none the server says where
        hear()
        return api.create(job)
    if len(begun) < stdin.AT_ONCE:
        hear()
        return api.filter(job, begun, None)

    def rest() -> Iterator[bytes]:
        yield from found
        hear()

    return api.filter(job, begun, rest())


def _tell_dropped(job: bytes, made: Json) -> None:
    """Of fields that the server left out of the job as it was made."""
    for field in dropped(json.loads(job), made):
        tell(f"dray: {field}: there is no such field, it does nothing")


@app.command()
def submit(context: typer.Context, file: File = None, step: Steps = None, output: Output = Form.NAME) -> None:
    """Post a job and print its id, without waiting for it."""
    api, job = _api(context), jobfile.read(file, step or [])
    made = api.create(job)
    _tell_dropped(job, made)
    show.job(made if output is Form.NAME else api.get(made["id"]), output)


@app.command("ls")
def list_jobs(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="running, complete or error")] = None,
    name: Annotated[str | None, typer.Option(help="the whole name")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY[=VALUE]", help="given again, all must hold")] = None,
    limit: Annotated[int, typer.Option(min=1, help="jobs at most")] = 100,
    output: Output = Form.TABLE,
) -> None:
    """List jobs, newest first."""
    filters = {"order": "newest", "label": label or [], **{key: value for key, value in (("status", status), ("name", name)) if value is not None}}
    found, more = _api(context).page(filters, limit)
    show.jobs(found, output)
    if more:
        tell_of_more(limit)


@app.command()
def get(context: typer.Context, job_id: Id, output: Output = Form.TABLE) -> None:
    """Show how far a job is."""
    show.job(_api(context).get(job_id), output)


@app.command()
def logs(context: typer.Context, job_id: Id, wait: Annotated[bool, typer.Option("--follow", "-f", help="go on until the job has ended")] = False) -> None:
    """Print the lines that a job's steps wrote."""
    show_log(_api(context), job_id, wait)


@app.command()
def output(
    context: typer.Context,
    job_id: Id,
    step: Annotated[int | None, typer.Option(min=1, help="of this step, not of the last")] = None,
    given: Annotated[bool, typer.Option("--input", help="the input that the job came with")] = False,
) -> None:
    """Print what a job's last step passed on, byte for byte."""
    api = _api(context)
    show.octets(api.input(job_id) if given else api.output(job_id, step))


@app.command("reproduce")
def reproduce_step(context: typer.Context, job_id: Id, step: Annotated[int, typer.Argument(min=1, metavar="STEP", help="which step of it")]) -> None:
    """Print the commands that repeat one step by hand, for a shell."""
    connection = context.obj()
    elsewhere = connection.server != config.find(os.environ).server
    client = ["dray", f"--server={connection.server}"] if elsewhere else ["dray"]
    sys.stdout.write(shown(reproduce.commands(Api(connection), job_id, step, client), sys.stdout, keep="\t\n"))


@app.command()
def cancel(context: typer.Context, job_id: Id, always: Annotated[bool, typer.Option("--always", help="also steps that always run")] = False) -> None:
    """Stop a job."""
    record = _api(context).cancel(job_id, always)
    tell(f"job {job_id} {'is being stopped' if record['status'] == 'running' else 'has ended'}")


@app.command()
def rerun(
    context: typer.Context, job_id: Id, first: Annotated[int | None, typer.Option("--from", min=1, metavar="STEP", help="go on from this step")] = None
) -> None:
    """Run a job once more and print the new one's id."""
    show.line(_api(context).rerun(job_id, first)["id"])


@app.command("rm")
def remove(context: typer.Context, job_ids: Annotated[list[str], typer.Argument(metavar="ID", help="of the jobs")]) -> None:
    """Delete jobs' records, logs and outputs.

    One that runs is not stopped.
    """
    api = _api(context)
    for job_id in job_ids:
        api.remove(job_id)


def main(words: list[str], verbs: typer.Typer = app, program: str = "dray") -> int:
    """Exit codes: 0 done, 1 not, 2 not understood; `run` has more."""
    try:
        return _typed(words, verbs, program)
    except Failed as error:
        tell_failure(error, program)
    except BadSetting as error:
        tell(f"{program}: {error}")
        return 2
    except KeyboardInterrupt:
        return watch.CANCELLED
    except OSError as error:
        tell(f"{program}: stdout: {error.strerror or error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer would be told of once more
    return 1


def _typed(words: list[str], verbs: typer.Typer, program: str) -> int:
    try:
        verbs(words, prog_name=program)
    except SystemExit as ended:
        sys.stdout.flush()
        return ended.code if isinstance(ended.code, int) else 0
    return 0
