"""DrayJobs in a cluster, as the verbs use them: one method for each request, failures as Failed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from dray.client.api import Json
from dray.client.errors import Failed
from dray.cluster import Absent, Cluster, Conflict, Refused, cluster
from dray.crd.drayjob import collection
from dray.errors import Unavailable

_PAGE = 500
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


class Gone(Failed):
    """There is no such DrayJob."""


class DrayJobs:
    """Of one namespace: what is given, else the context's. Raises BadSetting where there is no cluster."""

    def __init__(self, context: str | None, namespace: str | None) -> None:
        self.cluster: Cluster = cluster(context)
        self.namespace = _checked(namespace or self.cluster.namespace, "namespace")

    def enter(self, namespace: str | None) -> None:
        """Work in this namespace, where one is named."""
        self.namespace = _checked(namespace or self.namespace, "namespace")

    def create(self, body: Json) -> Json:
        with _told(f"DrayJob {body['metadata']['name']}"):
            created: Json = self.cluster.create(f"{collection(self.namespace)}?fieldValidation=Strict", body)
            return created

    def get(self, name: str) -> Json:
        with self._told_of(name):
            found: Json = self.cluster.get(self._path(name))
            return found

    def list(self, everywhere: bool, selector: str | None) -> list[Json]:
        """All, in the API server's order. `selector`: of labels, as kubectl has it."""
        found, query = list[Json](), {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        with _told("DrayJobs"):
            while True:
                page = self.cluster.get(f"{collection(None if everywhere else self.namespace)}?{urlencode(query)}")
                found += page["items"]
                query["continue"] = page["metadata"].get("continue") or ""
                if not query["continue"]:
                    return found

    def delete(self, name: str) -> None:
        with self._told_of(name):
            self.cluster.delete(self._path(name), {"propagationPolicy": "Background"})

    def _path(self, name: str) -> str:
        return f"{collection(self.namespace)}/{_checked(name, 'DrayJob')}"

    @contextmanager
    def _told_of(self, name: str) -> Iterator[None]:
        try:
            with _told(f"DrayJob {name}"):
                yield
        except Absent:
            raise Gone(f"there is no DrayJob {name} in namespace {self.namespace}") from None


def _checked(name: str, what: str) -> str:
    """It becomes part of a path."""
    if not _NAME.fullmatch(name):
        raise Failed(f"{name!r} is no {what}'s name")
    return name


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Raises Absent, and Failed for all else."""
    try:
        yield
    except Conflict:
        raise Failed(f"{what} exists already") from None
    except (Refused, Unavailable) as error:
        raise Failed(str(error)) from None
