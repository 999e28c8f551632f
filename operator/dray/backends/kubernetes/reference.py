"""References of images: which registry, which repository there, which tag or digest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from docker.utils import parse_repository_tag

HUB, _OFFICIAL = "docker.io", "library"
HUB_NAMES = (HUB, "index.docker.io", "registry-1.docker.io")
_LAST_PORT, _DIGITS = 65535, 5
_LONGEST = 255  # of a repository's name, as container engines have it
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(frozen=True)
class Reference:
    """`ubuntu` is host docker.io, path library/ubuntu, tag latest. `repository`: as it was written, without tag and digest.

    Where there is a digest, the tag says nothing.
    """

    repository: str
    host: str
    path: str
    tag: str
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository in full, whichever way it was written."""
        return f"{self.host}/{self.path}"

    @property
    def fault(self) -> str:
        """Why there can be no such image."""
        if len(self.name) > _LONGEST:
            return f"its name is longer than {_LONGEST} characters"
        if self.digest and not DIGEST.fullmatch(self.digest):
            return "its digest is neither of sha256 nor of sha512"
        port = self.host.rpartition(":")[2]
        if port.isdigit() and (len(port) > _DIGITS or int(port) > _LAST_PORT):
            return f"its registry's port is greater than {_LAST_PORT}"
        return ""

    def pinned(self, digest: str) -> str:
        """A reference to that very image, and no other ever."""
        return f"{self.repository}@{digest}"


def parse(source: str) -> Reference:
    """Of a step's source, which `fields` has found to be a reference."""
    tagged, _, digest = source.partition("@")
    repository, tag = parse_repository_tag(tagged)
    host, _, path = repository.partition("/")
    if not path or not (any(mark in host for mark in ".:[") or host == "localhost"):
        host, path = HUB, repository
    if host in HUB_NAMES:
        host, path = HUB, path if "/" in path else f"{_OFFICIAL}/{path}"
    return Reference(repository, host, path, tag or "latest", digest)
