"""What registries say of an image, in the words of OCI and of Docker, which mean the same. Checked: no registry is trusted. No I/O."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from dray.backends.kubernetes.distribution import NoImage
from dray.backends.kubernetes.fetch import Failed
from dray.backends.kubernetes.reference import DIGEST

_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_M = TypeVar("_M", bound=BaseModel)
_Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # it becomes a word of a command
_Words = tuple[_Text, ...]


class _Platform(BaseModel):
    os: str = ""
    architecture: str = ""


class _Descriptor(BaseModel):
    digest: Annotated[str, Field(pattern=f"^(?:{DIGEST.pattern})$")]
    mediaType: str = ""  # noqa: N815 (the format's)
    platform: _Platform | None = None


class Manifest(BaseModel):
    """Of one image, which has a `config`; or an index of the same image's for several platforms."""

    config: _Descriptor | None = None
    manifests: tuple[_Descriptor, ...] = ()

    def choose(self, architecture: str) -> str:
        """The digest of the image for Linux on this architecture. Raises NoImage."""
        wanted = _Platform(os="linux", architecture=architecture)
        for fits in ((wanted,), (None,)):
            for entry in self.manifests:
                if entry.platform in fits:
                    return entry.digest
        raise NoImage(f"there is nothing of it for linux/{architecture}")


class _Runs(BaseModel):
    Entrypoint: _Words | None = None
    Cmd: _Words | None = None
    User: _Text = ""


class _Configuration(BaseModel):
    config: _Runs | None = None


class Config:
    """What an image runs, and as whom. `size`: in bytes, as the registry sent it."""

    def __init__(self, runs: _Runs, size: int) -> None:
        self.entrypoint, self.args = runs.Entrypoint or (), runs.Cmd or ()
        self.user, self.size = runs.User, size


def parse(content: bytes) -> Manifest:
    """Raises NoImage for what is in order but no image, Failed for what is not in order."""
    found = _valid(Manifest, content)
    if found.config is not None and found.manifests:
        raise Failed("its manifest says that it is an image and an index, both")  # which of them was meant depends on the reader
    if found.config is not None and found.config.mediaType not in _CONFIGS:
        raise NoImage(f"it is no image, but {found.config.mediaType[:100]!r}")
    if found.config is None and not found.manifests:
        raise NoImage("its manifest names no configuration")
    return found


def parse_config(content: bytes) -> Config:
    """Raises Failed."""
    return Config(_valid(_Configuration, content).config or _Runs(), len(content))


def _valid(model: type[_M], content: bytes) -> _M:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"][:4]))
        raise Failed(f"what the registry says of it is damaged: {where}: {fault['msg'][:100]}") from None
