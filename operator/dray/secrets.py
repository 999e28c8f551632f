"""The operator's secrets: a file of that name in the folder DRAY_SECRETS, or a variable DRAY_SECRET_<NAME> of its environment.

And, for jobs that come from a cluster, what Secrets and ConfigMaps there hold. Read anew each time, so that a changed
one counts for the next step. Never logged, never kept.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping

from dray import fields
from dray.cluster import Absent, Refused, cluster
from dray.settings import Settings
from dray.spec import ClusterValue, EnvVar


class NoSecret(LookupError):
    """There is none of that name; the text says where one could be."""


class Secrets:
    def __init__(self, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        self._dir, self._environment, self._kubernetes = settings.secrets_dir, environment, settings.kubernetes

    def of(self, variable: EnvVar) -> str | None:
        """The variable's value; None: it is optional and there is none. Blocks. Raises NoSecret, and Unavailable where the cluster does not answer."""
        if variable.cluster is not None:
            return self._in_cluster(variable.cluster)
        return variable.value if variable.secret is None else self.value(variable.secret)

    def value(self, name: str) -> str:
        """Without one line end at the end of its file. Raises NoSecret."""
        variable = "DRAY_SECRET_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
        value = self._in_folder(name)
        if value is None:
            value = self._environment.get(variable)
        if value is None:
            folder = f"no file {name!r} in DRAY_SECRETS" if self._dir else "no folder DRAY_SECRETS"
            raise NoSecret(f"secret {name!r}: the operator has {folder} and no variable {variable}")
        return _fit(value, f"secret {name!r}")

    def _in_cluster(self, wanted: ClusterValue) -> str | None:
        where = f"key {wanted.key!r} of {wanted.kind} {wanted.namespace}/{wanted.name}"
        if not self._kubernetes:
            raise NoSecret(f"{where}: this operator was started without --kubernetes")
        try:
            found = cluster().get(f"/api/v1/namespaces/{wanted.namespace}/{wanted.kind.lower()}s/{wanted.name}")
        except Absent:
            found = {}
        except Refused as error:
            raise NoSecret(f"{where}: the operator may not read it ({error.status})") from None
        text = (found.get("data") or {}).get(wanted.key)
        if text is None:
            if wanted.optional:
                return None
            raise NoSecret(f"{where}: there is none")
        return _fit(_decoded(text, where) if wanted.kind == "Secret" else text, where)

    def _in_folder(self, name: str) -> str | None:
        if self._dir is None:
            return None
        try:
            return (self._dir / name).read_text().removesuffix("\n")
        except (FileNotFoundError, IsADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise NoSecret(f"secret {name!r} cannot be read: {type(error).__name__}") from None


def _decoded(text: str, where: str) -> str:
    try:
        return base64.b64decode(text).decode()
    except UnicodeDecodeError:
        raise NoSecret(f"{where} cannot be a variable: it is no UTF-8") from None


def _fit(value: str, where: str) -> str:
    if "\0" in value or fields.size(value) > fields.MAX_VARIABLE:
        raise NoSecret(f"{where} cannot be a variable: it has a NUL character or more than {fields.MAX_VARIABLE} bytes")
    return value
