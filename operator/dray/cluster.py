"""The API server of a Kubernetes cluster, as KUBECONFIG, ~/.kube/config or the pod's service account say.

Calls block, ten seconds at most: they are for threads. Bodies are JSON values as the API has them.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from urllib3.exceptions import HTTPError

from dray.errors import BadSetting, Unavailable

_TIMEOUTS = (3, 10)  # seconds to connect, and for a reply
_CONNECTIONS = 16
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_JSON, _MERGE = "application/json", "application/merge-patch+json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_UNAVAILABLE = {401, 429}  # a token that has just run out is renewed; too many requests pass


class Absent(LookupError):
    """There is no such object."""


class Conflict(Exception):
    """There is one already, or it is not as the caller said."""


class Refused(Exception):
    """The API server will not do it, however often it is asked: it is forbidden, or the object is not valid."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cluster:
    """Every call raises Absent, Conflict or Refused as the answer says, and Unavailable when there is none."""

    def __init__(self, client: Any, namespace: str) -> None:
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415 (see `cluster`)

        self._client, self.namespace = client, namespace
        self._failures = (HTTPError, OSError, ApiException)

    @property
    def configuration(self) -> Any:
        """Where the API server is, and who we are to it."""
        return self._client.configuration

    def get(self, path: str) -> Any:
        return self._call("GET", path)

    def metadata(self, path: str) -> Any:
        """A list, with no more of each object than its metadata."""
        return self._call("GET", path, accept=_METADATA)

    def create(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, body)

    def replace(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("PUT", path, body)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """A JSON merge patch: None takes a field away."""
        return self._call("PATCH", path, body, _MERGE)

    def delete(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("DELETE", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, kind: str = _JSON, accept: str = _JSON) -> Any:
        headers = {"Accept": accept, "Content-Type": kind}
        path, _, query = path.partition("?")
        request = self._client.param_serialize(method, path, header_params=headers, body=body, auth_settings=["BearerToken"])
        verb, url, *rest = request
        try:
            answer = self._client.call_api(verb, f"{url}?{query}" if query else url, *rest, _request_timeout=_TIMEOUTS)
            content = answer.read()
        except self._failures as error:
            raise Unavailable(f"Kubernetes: {type(error).__name__}") from None
        return _judged(answer.status, content)


def _judged(status: int, content: bytes) -> Any:
    if 200 <= status < 300:
        return json.loads(content)
    if status in _UNAVAILABLE or status >= 500:
        raise Unavailable(f"Kubernetes answers {status}")
    message = _message(content)
    if status == 404:
        raise Absent(message)
    if status == 409:
        raise Conflict(message)
    raise Refused(status, message)


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, LookupError, TypeError):
        return content[:200].decode(errors="replace")


@functools.cache
def cluster(context: str | None = None) -> Cluster:
    """The one that this process works with; `context`: another of the configuration's than its current one. Raises BadSetting."""
    from kubernetes import client  # noqa: PLC0415 (half a second's work, that only this takes)
    from kubernetes import config as untyped  # noqa: PLC0415

    config: Any = untyped
    configuration = client.Configuration()
    configuration.retries = False
    configuration.connection_pool_maxsize = _CONNECTIONS
    try:
        files = os.environ.get("KUBECONFIG")
        if context or files or not _ACCOUNT.exists():
            config.load_kube_config(files, context=context, client_configuration=configuration)
            contexts, active = config.list_kube_config_contexts(files)
            chosen = next(known for known in contexts if known["name"] == context) if context else active
            namespace = chosen["context"].get("namespace", "default")
        else:
            config.load_incluster_config(client_configuration=configuration)
            namespace = _ACCOUNT.read_text().strip()
        return Cluster(client.ApiClient(configuration), namespace)
    except (config.ConfigException, OSError) as error:
        raise BadSetting(f"Kubernetes: there is no cluster to be found: {error}") from None
