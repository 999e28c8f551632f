"""Boxes: the container of one attempt, from the image and what the step asks for."""

from __future__ import annotations

import asyncio
from typing import Any

from dray import policy, runner
from dray.backends import Launching
from dray.backends.docker import names
from dray.backends.docker.archive import empty_file
from dray.backends.docker.engine import NO_LOG, Engine, Faltering, Refused
from dray.backends.docker.images import Found
from dray.backends.docker.sandbox import Sandboxes
from dray.backends.docker.view import Container, View, listed
from dray.errors import Unavailable
from dray.pod import Fault, Key, Stage
from dray.reason import Reason
from dray.record import Job
from dray.settings import Settings
from dray.spec import Mount

_STARTS = 5  # refusals before a start is given up
_PAUSE = 0.1  # seconds after the first; doubled for each one after
_AT_FAULT = (400, 403)  # what Docker answers, among others, to a start that it can never make


class Unfit(Exception):
    """The step cannot be run as it is; the text says why."""


class Boxes:
    """Makes boxes on one engine."""

    def __init__(self, engine: Engine, sandboxes: Sandboxes, settings: Settings) -> None:
        self._engine, self._sandboxes, self._settings = engine, sandboxes, settings

    async def launch(self, view: View, job: Job, key: Key, given: Launching) -> None:
        """The box, made and started; both may have been done before. A fault of the step's is noted among the images."""
        image = view.images.get(key)
        if not isinstance(image, Found):
            raise Unavailable(f"the image of step {key[0]} is not ready")
        try:
            sandbox = await self._sandbox(view, job)
            made = await self._make(view, job, key, image, given, sandbox)
            await self._start(view, key, made, sandbox)
        except Unfit as error:
            view.images[key] = Fault(Reason.START_FAILED, str(error))
        except (Faltering, Refused) as error:
            view.stale()
            await self._refused(view, job, key, error)
        except BaseException:
            view.stale()
            raise

    async def _sandbox(self, view: View, job: Job) -> Container:
        sandbox = (await listed(self._engine, view)).get(None)
        if sandbox is None or sandbox.stage is not Stage.RUNNING:
            raise Unavailable(f"engine: the sandbox of job {job.id} is gone")
        if sandbox.network != job.spec.network:
            raise Unfit(f"network {job.spec.network}: the engine has none of that name that a container can join")
        return sandbox

    async def _make(self, view: View, job: Job, key: Key, image: Found, given: Launching, sandbox: Container) -> str:
        """Its id. Made once: named by its attempt, a second one is the first (409)."""
        step = job.spec.steps[key[0]]
        config = self._config(job, key, image, given, view.pod) | {"HostConfig": await self._host_config(job, key, view.pod, sandbox)}
        name = names.box(view.pod, key)
        try:
            made = str((await self._engine.ask("POST", "/containers/create", config, name=name))["Id"])
        except Refused as error:
            if error.status == 400:
                raise Unfit(str(error)) from error
            if error.status != 409:
                raise
            made = await self._joined(name, sandbox)
        if step.output.startswith("/"):
            if await self._engine.is_folder(made, step.output):
                raise Unfit(f"output {step.output} is a folder in the image")
            await self._engine.lay(made, "/", empty_file(step.output))
        return made

    async def _start(self, view: View, key: Key, made: str, sandbox: Container) -> None:
        await self._engine.ask("POST", f"/containers/{made}/start")
        view.learn(key, Container(made, Stage.RUNNING, f"container:{sandbox.id}"))

    async def _joined(self, name: str, sandbox: Container) -> str:
        """A box that an engine, killed in the middle of its creation, holds but may not list: of use only if it joined this sandbox."""
        found = await self._engine.must("GET", f"/containers/{name}/json")
        if found["HostConfig"]["NetworkMode"] != f"container:{sandbox.id}":
            await self._engine.remove(name)
            raise Unavailable(f"engine: box {name} was of another sandbox")
        return str(found["Id"])

    async def _refused(self, view: View, job: Job, key: Key, error: Faltering | Refused) -> None:
        """A start that the engine would not make: the step's fault when it is refused again and again, with a living sandbox.

        No single answer tells the step's fault from the engine's: Docker answers 500 to a user that the image does not
        have, and 400 to a start that its own end interrupts. 404 and 409: something the step needs has gone.
        """
        sandbox = (await listed(self._engine, view)).get(None)
        if sandbox is None or sandbox.stage is not Stage.RUNNING:
            raise Unavailable(f"engine: the sandbox of job {job.id} died under step {key[0] + 1}") from error
        view.refusals[key] += isinstance(error, Faltering) or error.status in _AT_FAULT
        if view.refusals[key] >= _STARTS:
            view.images[key] = Fault(Reason.START_FAILED, str(error))
            return
        view.images.pop(key, None)
        await asyncio.sleep(_PAUSE * 2 ** view.refusals[key])
        raise Unavailable(f"engine: {error}") from error

    def _config(self, job: Job, key: Key, image: Found, given: Launching, pod: str) -> dict[str, Any]:
        step = job.spec.steps[key[0]]
        words = step.words(image.entrypoint, image.args)
        if not words:
            raise Unfit(f"image {step.source} has neither entrypoint nor command, and the step names none")
        command = runner.step_command(*key, step, words, self._settings, options=runner.step_options(job, key[0], given.retries, given.masked, self._settings))
        config = {
            "Image": image.id,
            "Entrypoint": command[:1],
            "Cmd": command[1:],
            "Env": [f"{name}={value}" for name, value in given.environment.items()],
            "Labels": names.of_box(self._sandboxes.instance, pod, job.id, key),
            "Healthcheck": {"Test": ["NONE"]},
        }
        return config | {"WorkingDir": step.workdir} if step.workdir else config

    async def _host_config(self, job: Job, key: Key, pod: str, sandbox: Container) -> dict[str, Any]:
        step, limits = job.spec.steps[key[0]], policy.limits(job.spec, key[0], self._settings)
        config: dict[str, Any] = {"NetworkMode": f"container:{sandbox.id}", "LogConfig": NO_LOG, "Binds": self._sandboxes.binds(pod)}
        config["Binds"] += [await self._bind(mount) for mount in step.mounts if mount.volume is not None]
        config["Mounts"] = [_bound(mount) for mount in step.mounts if mount.hostPath is not None]
        if limits.cpu is not None:
            config["NanoCpus"] = limits.cpu * 10**6
        if limits.memory is not None:
            config |= {"Memory": limits.memory, "MemorySwap": limits.memory}
        if limits.pids is not None:
            config["PidsLimit"] = limits.pids + 1  # the runner's own process
        return config

    async def _bind(self, mount: Mount) -> str:
        """A volume that outlives its jobs, so it carries no instance: no sweep takes it."""
        assert mount.volume is not None
        name = names.mounted(mount.volume)
        await self._engine.must("POST", "/volumes/create", {"Name": name, "Labels": {names.VOLUME: mount.volume}})
        return f"{name}:{mount.path}:{'ro' if mount.readOnly else 'rw'},z"


def _bound(mount: Mount) -> dict[str, Any]:
    """A folder of the host's, which must be there; its SELinux label is the host's business."""
    return {"Type": "bind", "Source": mount.hostPath, "Target": mount.path, "ReadOnly": mount.readOnly}
