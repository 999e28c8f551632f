"""`kubectl dray`: the client's verbs on DrayJobs, by their names. kubectl finds it as the program `kubectl-dray` on PATH.

The objects are the cluster's; logs and outputs come from Dray's API, which is found as the client finds it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: those of the client's verbs."""
    from dray.cli.kubectl.verbs import main as typed  # noqa: PLC0415 (`dray.cli` loads only what is asked for)

    return typed(list(sys.argv[1:] if argv is None else argv))
