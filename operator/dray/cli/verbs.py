"""The client's verbs, and beside them the commands that look at this machine: `doctor`, and the names of those that serve."""

from __future__ import annotations

import typer

from dray.cli import SERVERS
from dray.client.app import app, main

__all__ = ["main"]


@app.command()
def doctor(context: typer.Context) -> None:
    """Tell what keeps Dray from working.

    One line for each thing of this machine, or of the server, and how to mend it.
    """
    from dray.cli import checks  # noqa: PLC0415 (it loads what serves)

    raise typer.Exit(checks.main(context.obj))


def _serving(name: str, text: str) -> None:
    """In the list of commands, for help and completion; `dray.cli` runs it where it comes first."""

    @app.command(name, help=text)
    def misplaced() -> None:
        raise typer.BadParameter(f"options of the client do not go with it: dray {name} comes first")


for _name, _text in SERVERS.items():
    _serving(_name, _text)
