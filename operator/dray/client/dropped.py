"""Fields that the server did not take: it drops what it does not know, as the original did, so a typing error in a name would go unseen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def dropped(sent: Any, kept: Any, at: str = "") -> Iterator[str]:
    """`steps[0].retry`: each field of `sent` that is not in `kept`, the server's answer. What is empty it leaves out of that."""
    match sent, kept:
        case dict(), dict():
            for key, value in sent.items():
                where = f"{at}.{key}" if at else key
                if key in kept or (value and isinstance(value, dict)):
                    yield from dropped(value, kept.get(key, {}), where)
                elif value:
                    yield where
        case list(), list():
            for number, (one, other) in enumerate(zip(sent, kept, strict=False)):
                yield from dropped(one, other, f"{at}[{number}]")
