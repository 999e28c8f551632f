"""What goes wrong, as it is told to the user."""

from __future__ import annotations

from collections.abc import Sequence


class Failed(Exception):
    """The text says what, for people; `lines` more of it, one for each thing."""

    def __init__(self, text: str, lines: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.lines = tuple(lines)


class Refused(Failed):
    """The server answered with this status."""

    def __init__(self, status: int, text: str, lines: Sequence[str] = ()) -> None:
        super().__init__(text, lines)
        self.status = status


class Unreachable(Failed):
    """No answer, or one that broke off: asking again may help."""
