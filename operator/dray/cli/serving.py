"""`dray serve`, `dray api` and `dray operator`: their options."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from dray import logs, settings
from dray.cli import SERVERS, run
from dray.errors import BadSetting


def main(argv: Sequence[str]) -> int:
    """Exit codes: 0 ended when told to, 2 a setting that cannot be used."""
    parsed, odd = _parser().parse_known_args(argv)
    given = vars(parsed)
    command, refuse = given.pop("command"), given.pop("refuse")
    if odd:
        refuse(f"unrecognized arguments: {' '.join(odd)}")
    level, complaint = settings.log_level(os.environ)
    logs.configure(level)
    if complaint:
        logging.getLogger(__name__).error(complaint)
    try:
        return run.run(command, settings.from_environment(os.environ, log_level=level, **given))
    except BadSetting as error:
        print(f"dray {command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dray", description="Run jobs made of container steps: the output of each is the input of the next.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve, api, operator = (commands.add_parser(name, help=text) for name, text in SERVERS.items())
    for parser_with_api in (serve, api):
        parser_with_api.add_argument("-p", "--port", type=_port, help="port to listen on (3000)")
        parser_with_api.add_argument("--host", help="address to listen on (127.0.0.1)")
        parser_with_api.add_argument("--no-auth", action="store_true", default=None, help="listen beyond this machine without a token")
    operator.add_argument("--metrics-port", type=_port, help="port for /metrics, /healthz and /readyz (none)")
    operator.add_argument("--host", help="address that port is opened on (127.0.0.1)")
    operator.add_argument("--no-auth", action="store_true", default=None, help="open it beyond this machine without a token")
    for parser_with_operator in (serve, operator):
        group = parser_with_operator.add_argument_group("Kubernetes")
        group.add_argument("--backend", type=settings.Runs, choices=list(settings.Runs), help="what jobs run on: docker, or kubernetes (docker)")
        group.add_argument("--image", help="Dray's own image, which has the runner for the pods of jobs on Kubernetes")
        group.add_argument("--job-namespace", type=_namespace, metavar="NAMESPACE", help="where jobs run that name no namespace (the operator's own)")
        group.add_argument("--kubernetes", action="store_true", default=None, help="run the cluster's DrayJobs too (KUBECONFIG, or the pod's service account)")
        group.add_argument("--namespaces", type=_namespaces, metavar="A,B", help="DrayJobs of these namespaces only (all)")
        group.add_argument("--mirror-jobs", type=_namespace, metavar="NAMESPACE", help="show jobs that came another way as DrayJobs there")
    for any_parser in (serve, api, operator):
        any_parser.set_defaults(refuse=any_parser.error)  # with its own usage, not that of all three
        any_parser.add_argument("--data-dir", type=Path, help="where Redis and outputs are kept (./dray-data)")
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text[:6]) <= 65535:
        raise argparse.ArgumentTypeError("must be a port, 0 to 65535")
    return int(text)


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError("must be the name of a namespace")
    return text


def _namespaces(text: str) -> tuple[str, ...]:
    return tuple(_namespace(name.strip()) for name in text.split(","))
