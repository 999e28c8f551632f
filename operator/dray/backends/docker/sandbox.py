"""The sandbox's image and the runner's volume: how the native runner gets onto an engine, local or remote.

The image holds the runner and two directories. A volume mounted over a directory of an image is filled from it when it
is empty: so the job's volume gets mode 01777, in which any user of any image can write, and the runner's volume, shared
by all jobs and read-only to them, gets the runner. Both are named by the runner's hash: a new version is a new one.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from dray import runner
from dray.backends.docker import names
from dray.backends.docker.archive import packed, unpacked
from dray.backends.docker.engine import NO_LOG, Engine, Missing, Refused
from dray.backends.docker.wire import Connection
from dray.errors import BadSetting, Unavailable
from dray.tasks import finished

_CAPABILITIES = ["DAC_OVERRIDE", "FOWNER"]  # the agent reads and removes what any step made, whatever its mode
_ARCHITECTURES = {b"\x3e\x00": "amd64", b"\xb7\x00": "arm64"}  # e_machine of the ELF header → the engine's name
NETWORK = "bridge"  # of a job that names none
_NO_NETWORK = "none"
_OWN_NETWORKS = (NETWORK, _NO_NETWORK)  # what every engine has
_LINE = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "AttachStdout": True}  # its stdin ends with the one who made it


class Made(NamedTuple):
    """A running sandbox: the container's id, its network, and the line to its agent; None where it ran already, and its agent is another's."""

    id: str
    network: str
    line: Connection | None


@dataclass(frozen=True)
class Sandboxes:
    """Makes sandboxes on one engine."""

    engine: Engine
    instance: str
    binary: bytes

    @cached_property
    def _hash(self) -> str:
        return hashlib.sha256(self.binary).hexdigest()[:12]

    @property
    def image(self) -> str:
        return f"dray-sandbox:{self._hash}"

    @property
    def runner_volume(self) -> str:
        return f"dray-runner-{self._hash}"

    def binds(self, pod: str) -> list[str]:
        """A job's volume and the runner, for a sandbox or a box; `z`: shared, where the host has SELinux."""
        return [f"{pod}:{runner.VOLUME_DIR}:rw,z", f"{self.runner_volume}:{runner.RUNNER_DIR}:ro,z"]

    async def prepare(self) -> None:
        """The image on the engine and the runner in its volume. Raises BadSetting when the engine is of another architecture."""
        architecture = (await self.engine.must("GET", "/version"))["Arch"]
        built = _ARCHITECTURES.get(self.binary[18:20], "another architecture")
        if architecture != built:
            raise BadSetting(f"the engine is {architecture}, this runner is built for {built}: run Dray on a machine of the engine's kind")
        await self._load()
        await finished(self._check_volume())  # a stop meanwhile leaves no container

    async def make(self, pod: str, labels: dict[str, str], network: str) -> Made:
        """The pod's volume and a running sandbox. One that is there but does not run is replaced.

        The network is `none` where the engine has no such network or lets no container join it: a box sees it by that.
        """
        await self.engine.must("POST", "/volumes/create", {"Name": pod, "Labels": labels})
        if network not in _OWN_NETWORKS and not await self._has(network):
            network = _NO_NETWORK
        try:
            return await self._run(pod, labels, network)
        except Refused as error:
            if network in _OWN_NETWORKS:
                raise Unavailable(f"engine: {error}") from error
            return await self._run(pod, labels, _NO_NETWORK)

    async def _has(self, network: str) -> bool:
        """The host's own network is no job's to join."""
        try:
            found = await self.engine.ask("GET", f"/networks/{network}")
        except Missing:
            return False
        return bool(found["Name"] == network and found["Driver"] != "host")

    async def _run(self, pod: str, labels: dict[str, str], network: str) -> Made:
        name = names.sandbox(pod)
        config = {"Image": self.image, "Labels": labels, "HostConfig": self._host_config(pod, network), **_LINE}
        try:
            made, runs = await self._create(name, config)
        except Missing:
            await self._load()
            made, runs = await self._create(name, config)
        return Made(made, network, None if runs else await self._start(made))

    async def _start(self, container: str) -> Connection:
        line = await self.engine.attach(container)
        try:
            await self.engine.ask("POST", f"/containers/{container}/start")
        except BaseException:
            line.writer.close()
            raise
        return line

    async def _create(self, name: str, config: dict[str, Any]) -> tuple[str, bool]:
        """Its id, and whether it runs already."""
        try:
            return str((await self.engine.ask("POST", "/containers/create", config, name=name))["Id"]), False
        except Refused as error:
            if error.status != 409:
                raise
        found = await self.engine.must("GET", f"/containers/{name}/json")
        if found["State"]["Running"] and found["HostConfig"]["NetworkMode"] == config["HostConfig"]["NetworkMode"]:
            return str(found["Id"]), True
        await self.engine.remove(name)
        return str((await self.engine.must("POST", "/containers/create", config, name=name))["Id"]), False

    def _host_config(self, pod: str, network: str) -> dict[str, Any]:
        return {
            "NetworkMode": network,
            "Binds": self.binds(pod),
            "LogConfig": NO_LOG,
            "CapDrop": ["ALL"],
            "CapAdd": _CAPABILITIES,
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
        }

    async def _load(self) -> None:
        try:
            await self.engine.ask("GET", f"/images/{self.image}/json")
        except Missing:
            await self.engine.load(self._archive())

    async def _check_volume(self) -> None:
        """A volume half filled by a crash stays so: compare, and lay the runner there anew."""
        name = f"{self.runner_volume}-{secrets.token_hex(4)}"
        config = {"Image": self.image, "Labels": {names.INSTANCE: self.instance}, "HostConfig": {"Binds": [f"{self.runner_volume}:{runner.RUNNER_DIR}:rw,z"]}}
        await self.engine.must("POST", "/containers/create", config, name=name)
        try:
            if await self._held(name) != self.binary:
                await self.engine.lay(name, runner.RUNNER_DIR, packed({"dray-runner": (0o755, self.binary)}))
        finally:
            await self.engine.remove(name)

    async def _held(self, container: str) -> bytes | None:
        try:
            return unpacked(await self.engine.fetch(container, runner.RUNNER), "dray-runner")
        except Missing:
            return None

    def _archive(self) -> bytes:
        """The image, as `docker load` takes it."""
        layer = packed({".dray/": (0o1777, b""), ".dray-bin/": (0o755, b""), ".dray-bin/dray-runner": (0o755, self.binary)})
        config = orjson.dumps(
            {
                "architecture": _ARCHITECTURES[self.binary[18:20]],
                "os": "linux",
                "config": {"Entrypoint": list(runner.SANDBOX), "StopSignal": "SIGKILL"},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            }
        )
        manifest = orjson.dumps([{"Config": "config.json", "RepoTags": [self.image], "Layers": ["layer.tar"]}])
        return packed({"layer.tar": (0o644, layer), "config.json": (0o644, config), "manifest.json": (0o644, manifest)})
