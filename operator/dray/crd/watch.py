"""kopf, which tells of objects as they change: in a thread and a loop of its own, since on its way out it cancels what else runs in its loop.

It only watches. What is done about an object follows from how it is (`decide.py`), so kopf needs no memory of its own
in the object: no annotation, no finalizer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import kopf

from dray.cluster import Cluster
from dray.crd.drayjob import GROUP, PLURAL, VERSION

for _name in ("kopf", "kubernetes", "urllib3", "aiohttp"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they would log objects and answers whole
logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it warns that a thread gets no signals

_STOP_WITHIN = 10.0  # seconds
_INACTIVE = 70.0  # seconds: a bookmark comes every 60


class Watch:
    """`saw` is called with each object that came or changed, `gone` with the uid of each that went: in the caller's loop."""

    def __init__(self, cluster: Cluster, namespaces: tuple[str, ...], saw: Callable[[Mapping[str, Any]], None], gone: Callable[[str], None]) -> None:
        self._cluster, self._namespaces, self._saw, self._gone = cluster, namespaces, saw, gone
        self._stop = threading.Event()

    async def run(self) -> None:
        """Until cancelled. Raises what kopf ended with; RuntimeError where it ended without."""
        loop, ended = asyncio.get_running_loop(), Future[None]()
        thread = threading.Thread(target=self._thread, args=(loop, ended), name="kopf", daemon=True)
        thread.start()
        try:
            await asyncio.wrap_future(ended)
            raise RuntimeError("kopf has ended")
        finally:
            self._stop.set()
            await asyncio.to_thread(thread.join, _STOP_WITHIN)

    def _thread(self, loop: asyncio.AbstractEventLoop, ended: Future[None]) -> None:
        failure: BaseException | None = None
        try:
            asyncio.run(self._watch(loop))
        except BaseException as error:  # noqa: BLE001 (told to whoever waits)
            failure = error
        if not ended.set_running_or_notify_cancel():
            return
        if failure is None:
            ended.set_result(None)
        else:
            ended.set_exception(failure)

    async def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        registry, settings = kopf.OperatorRegistry(), kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.watching.inactivity_timeout = _INACTIVE
        settings.watching.connect_timeout = 5
        settings.persistence.finalizer = f"{GROUP}/kopf"
        settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
        settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            return self._connection()

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def changed(event: Mapping[str, Any], **_: Any) -> None:
            body = event["object"]
            if event["type"] == "DELETED":
                loop.call_soon_threadsafe(self._gone, body["metadata"]["uid"])
            else:
                loop.call_soon_threadsafe(self._saw, body)

        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )

    def _connection(self) -> kopf.ConnectionInfo:
        configuration = self._cluster.configuration
        scheme, _, token = (configuration.get_api_key_with_prefix("BearerToken") or "").rpartition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            username=configuration.username or None,
            password=configuration.password or None,
            scheme=scheme or None,
            token=token or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )
