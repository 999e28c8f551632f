"""Images as their registries have them: what they run when a step names no command, and the digest that a tag means now."""

from __future__ import annotations

from dataclasses import dataclass

from dray.backends.kubernetes.logins import Logins
from dray.pod import Fault
from dray.settings import Settings
from dray.spec import JobSpec

NO_LOGINS = Logins()


@dataclass(frozen=True)
class ImageConfig:
    """An image. `pinned`: a reference that only it can ever have, by the digest that its tag means. `env`: as NAME=value."""

    pinned: str
    digest: str
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    env: tuple[str, ...] = ()


class Images:
    """The images of all registries, for steps that run on nodes of one operating system: Linux."""

    def __init__(self, settings: Settings) -> None:
        """Raises BadSetting where the CA file cannot be used."""

    async def close(self) -> None:
        """Let go of the connections."""

    async def config(self, source: str, logins: Logins = NO_LOGINS, architecture: str = "amd64") -> ImageConfig | Fault:
        """The image that the reference means at this moment; a fault when it cannot be had, naming it.

        `logins`: of the job (`logins.from_secrets`); the operator's own come after them. `architecture`: of the nodes that
        may run it, as their label kubernetes.io/arch says. What is known by digest is not asked for again; a tag costs a HEAD.
        """
        raise NotImplementedError

    async def pin(self, spec: JobSpec, logins: Logins = NO_LOGINS) -> tuple[str, ...]:
        """By step, its image as `repository@sha256:…`. Raises Invalid, naming the steps without one."""
        raise NotImplementedError
