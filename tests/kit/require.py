"""Parts of the world that tests need. A missing one skips its tests, or fails them where REQUIRE names it: `REQUIRE=docker,redis make test`."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

PARTS = ("docker", "redis", "kubernetes", "browser")


def required() -> frozenset[str]:
    """Raises pytest.UsageError for a part that does not exist: a misspelt one must not turn failures into skips."""
    named = frozenset(part.strip() for part in os.environ.get("REQUIRE", "").split(",") if part.strip())
    if unknown := named - set(PARTS):
        raise pytest.UsageError(f"REQUIRE names {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    return named


def missing(part: str, reason: str) -> NoReturn:
    """Skips the test, or fails it."""
    assert part in PARTS
    if part in required():
        pytest.fail(f"REQUIRE={part}, but {reason}", pytrace=False)
    pytest.skip(f"no {part}: {reason}")
