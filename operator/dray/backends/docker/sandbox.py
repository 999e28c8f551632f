"""The sandbox's image and the runner's volume: how the native runner gets onto an engine, local or remote.

The image holds the runner and two directories. A volume mounted over a directory of an image is filled from it when it
is empty: so the job's volume gets mode 01777, in which any user of any image can write, and the runner's volume, shared
by all jobs and read-only to them, gets the runner. Both are named by the runner's hash: a new version is a new one.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import tarfile
from dataclasses import dataclass
from typing import Any

import orjson
from docker.errors import APIError, ImageNotFound, NotFound

from dray import runner
from dray.backends.docker import names
from dray.backends.docker.engine import NO_LOG, Engine
from dray.errors import BadSetting, Unavailable

_CAPABILITIES = ["DAC_OVERRIDE", "FOWNER"]  # the agent reads and removes what any step made, whatever its mode
_ARCHITECTURES = {b"\x3e\x00": ("amd64", "x86_64"), b"\xb7\x00": ("arm64", "aarch64")}  # e_machine of the ELF header


@dataclass(frozen=True)
class Sandboxes:
    """Makes sandboxes on one engine."""

    engine: Engine
    instance: str
    binary: bytes

    @property
    def _hash(self) -> str:
        return hashlib.sha256(self.binary).hexdigest()[:12]

    @property
    def image(self) -> str:
        return f"dray-sandbox:{self._hash}"

    @property
    def runner_volume(self) -> str:
        return f"dray-runner-{self._hash}"

    def binds(self, volume: str) -> list[str]:
        """A job's volume and the runner, for a sandbox or a box; `z`: shared, where the host has SELinux."""
        return [f"{volume}:{runner.VOLUME_DIR}:rw,z", f"{self.runner_volume}:{runner.RUNNER_DIR}:ro,z"]

    async def prepare(self) -> None:
        """The image on the engine and the runner in its volume. Raises BadSetting when the engine is of another architecture."""
        architecture = (await self.engine.call(self.engine.api.version))["Arch"]
        built, _ = _ARCHITECTURES.get(self.binary[18:20], ("another architecture", ""))
        if architecture != built:
            raise BadSetting(f"the engine is {architecture}, this runner is built for {built}: run Dray on a machine of the engine's kind")
        await self._load()
        await self._check_volume()

    async def make(self, job_id: str, volume: str) -> None:
        """A running sandbox for the job; one that is there but not running is replaced."""
        api, name = self.engine.api, names.sandbox(job_id)
        await self.remove(name)
        config = {"name": name, "labels": names.labels(self.instance, job_id), "host_config": self._host_config(volume)}
        try:
            await self.engine.call(api.create_container, self.image, **config)
        except ImageNotFound:
            await self._load()
            await self.engine.call(api.create_container, self.image, **config)
        except APIError as error:  # the name is taken: the one before is not yet gone
            raise Unavailable(f"engine: {error.explanation}") from error
        try:
            await self.engine.call(api.start, name)
        except APIError as error:
            raise Unavailable(f"engine: {error.explanation}") from error

    async def remove(self, container: str) -> None:
        try:
            await self.engine.call(self.engine.api.remove_container, container, v=True, force=True)
        except NotFound:
            return
        except APIError as error:  # its removal is under way
            raise Unavailable(f"engine: {error.explanation}") from error

    def _host_config(self, volume: str) -> Any:
        return self.engine.api.create_host_config(
            binds=self.binds(volume), log_config=NO_LOG, cap_drop=["ALL"], cap_add=_CAPABILITIES, security_opt=["no-new-privileges"], read_only=True
        )

    async def _load(self) -> None:
        try:
            await self.engine.call(self.engine.api.inspect_image, self.image)
        except ImageNotFound:
            await self.engine.call(self._load_now)

    def _load_now(self) -> None:
        for _ in self.engine.api.load_image(self._archive()):  # type: ignore[no-untyped-call]
            pass

    async def _check_volume(self) -> None:
        """A volume half filled by a crash stays so: compare, and lay the runner there anew."""
        api, name = self.engine.api, f"{self.runner_volume}-{secrets.token_hex(4)}"
        config = api.create_host_config(binds=[f"{self.runner_volume}:{runner.RUNNER_DIR}:rw,z"])
        await self.engine.call(api.create_container, self.image, name=name, host_config=config, labels={names.INSTANCE: self.instance})
        try:
            if await self._held(name) != self.binary:
                await self.engine.call(api.put_archive, name, runner.RUNNER_DIR, _tar({"dray-runner": (0o755, self.binary)}))
        finally:
            await self.remove(name)

    async def _held(self, container: str) -> bytes | None:
        try:
            blocks, _ = await self.engine.call(self.engine.api.get_archive, container, runner.RUNNER)
            packed = io.BytesIO(await self.engine.call(lambda: b"".join(blocks)))
        except NotFound:
            return None
        with tarfile.open(fileobj=packed) as archive:
            file = archive.extractfile("dray-runner")
            return file.read() if file else None

    def _archive(self) -> bytes:
        """The image, as `docker load` takes it."""
        layer = _tar({".dray/": (0o1777, b""), ".dray-bin/": (0o755, b""), ".dray-bin/dray-runner": (0o755, self.binary)})
        architecture, _ = _ARCHITECTURES[self.binary[18:20]]
        config = orjson.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Entrypoint": list(runner.SANDBOX), "StopSignal": "SIGKILL"},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            }
        )
        manifest = orjson.dumps([{"Config": "config.json", "RepoTags": [self.image], "Layers": ["layer.tar"]}])
        return _tar({"layer.tar": (0o644, layer), "config.json": (0o644, config), "manifest.json": (0o644, manifest)})


def _tar(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive of name → (mode, content); a name with a final slash is a directory."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, (mode, content) in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.mode, entry.size = mode, len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def empty_file(path: str) -> bytes:
    """An archive that lays an empty file, writable by all, at an absolute path of a container."""
    return _tar({path.lstrip("/"): (0o666, b"")})
