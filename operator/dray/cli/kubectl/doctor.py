"""`kubectl dray doctor`: what keeps the verbs from working, one line each, and how to mend it. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from dray.cli.checks import Bad, Check, failing, report, token
from dray.client.api import Api
from dray.client.config import Connection
from dray.client.errors import Failed
from dray.cluster import Absent, Cluster, Conflict, Refused, cluster
from dray.crd.drayjob import GROUP, PLURAL, collection
from dray.errors import BadSetting, Unavailable

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_VERBS = ("create", "get", "list", "delete")


def main(namespace: str | None, context: str | None, connection: Callable[[], Connection]) -> int:
    """Exit codes: 0 all is well, 1 something is not."""
    return report(_checks(namespace, context, connection))


def _checks(namespace: str | None, context: str | None, connection: Callable[[], Connection]) -> Iterator[Check]:
    """Where there is no cluster, nothing can be asked of it."""
    try:
        found = cluster(context)
    except BadSetting as error:
        yield failing("cluster", f"{error}: mend KUBECONFIG, or name another --context")
    else:
        where = namespace or found.namespace
        yield Check("cluster", partial(_asked, partial(_cluster, found)))
        yield Check("DrayJobs", partial(_asked, partial(_drayjobs, found, where)))
        yield Check("permissions", partial(_asked, partial(_permissions, found, where)))
    try:
        server = connection()
    except BadSetting as error:
        yield failing("server", str(error))
        return
    yield Check("server", partial(_server, server))
    yield Check("token", partial(token, server))


def _asked(look: Callable[[], str]) -> str:
    try:
        return look()
    except (Absent, Conflict, Refused, Unavailable) as error:
        raise Bad(f"{error}: look at it with kubectl cluster-info") from None


def _cluster(found: Cluster) -> str:
    return f"Kubernetes {found.get('/version')['gitVersion']} at {found.configuration.host}"


def _drayjobs(found: Cluster, namespace: str) -> str:
    try:
        found.get(f"{collection(namespace)}?limit=1")
    except Absent:
        raise Bad("the cluster has none: kubectl apply -f crds/drayjob.yaml") from None
    return f"the cluster has them; the namespace is {namespace}"


def _permissions(found: Cluster, namespace: str) -> str:
    """Of whoever asks, in this namespace."""
    missing = [verb for verb in _VERBS if not _may(found, namespace, verb)]
    if missing:
        raise Bad(f"this user may not {', '.join(missing)} {PLURAL}.{GROUP} in {namespace}: bind a role that allows it")
    return f"this user may {', '.join(_VERBS)} {PLURAL} in {namespace}"


def _may(found: Cluster, namespace: str, verb: str) -> bool:
    attributes = {"namespace": namespace, "verb": verb, "group": GROUP, "resource": PLURAL}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
    return bool(found.create(_REVIEWS, body)["status"]["allowed"])


def _server(connection: Connection) -> str:
    try:
        Api(connection).health()
    except Failed as error:
        raise Bad(f"{error}: run, logs, output and cancel need it: set DRAY_SERVER, or kubectl port-forward to Dray's service") from None
    return f"Dray answers at {connection.server}"
