"""The operator's secrets: a file of that name in the folder DRAY_SECRETS, or a variable DRAY_SECRET_<NAME> of its environment.

Read anew each time, so that a changed one counts for the next step. Never logged, never kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from dray import fields
from dray.settings import Settings


class NoSecret(LookupError):
    """There is none of that name; the text says where one could be."""


class Secrets:
    def __init__(self, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        self._dir, self._environment = settings.secrets_dir, environment

    def value(self, name: str) -> str:
        """Without one line end at the end of its file. Raises NoSecret."""
        variable = "DRAY_SECRET_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
        value = self._in_folder(name)
        if value is None:
            value = self._environment.get(variable)
        if value is None:
            folder = f"no file {name!r} in DRAY_SECRETS" if self._dir else "no folder DRAY_SECRETS"
            raise NoSecret(f"secret {name!r}: the operator has {folder} and no variable {variable}")
        if "\0" in value or fields.size(value) > fields.MAX_VARIABLE:
            raise NoSecret(f"secret {name!r} cannot be a variable: it has a NUL character or more than {fields.MAX_VARIABLE} bytes")
        return value

    def _in_folder(self, name: str) -> str | None:
        if self._dir is None:
            return None
        try:
            return (self._dir / name).read_text().removesuffix("\n")
        except (FileNotFoundError, IsADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise NoSecret(f"secret {name!r} cannot be read: {type(error).__name__}") from None
