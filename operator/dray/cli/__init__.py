"""The `dray` command: what serves, and what people type. Each loads only what it needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

SERVERS = {
    "serve": "API, operator and a Redis of their own: all of it, on one machine",
    "api": "the API alone, on a shared Redis (REDIS_URL)",
    "operator": "the operator alone, on a shared Redis (REDIS_URL)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, or ended when told to; 2 what was typed, or a setting, cannot be used; others are the verbs' own."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in SERVERS:
        from dray.cli import serving  # noqa: PLC0415 (what serves does without the client)

        return serving.main(words)
    from dray.cli import verbs  # noqa: PLC0415 (the client does without what serves)

    return verbs.main(words)
