"""The images the example jobs name, built FROM scratch out of a static busybox: no registry, no base image, no network needed.

`make demo` and the tests call `ensure`. An image of the same name that somebody else made is left alone. The three of
Dray's own first job are pulled where a registry can be reached; the others are stand-ins and are always built here.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker
import requests
from docker.errors import BuildError, DockerException, ImageNotFound

_NONE: Mapping[str, Any] = MappingProxyType({})
LABEL = "dray.example"
PULL_WITHIN = 5  # seconds of silence after which a pull is given up
PASSWD = b"root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUP = b"root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n"


@dataclass(frozen=True)
class Recipe:
    """An image: what it runs, and files by absolute path. `lines` are further lines of its Dockerfile."""

    command: Sequence[str]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    lines: Sequence[str] = ()
    pull: bool = False

    @property
    def dockerfile(self) -> str:
        adds = ["ADD base.tar /"] + ["ADD files.tar /"] * bool(self.files)
        return "\n".join(["FROM scratch", *adds, *self.lines, f"CMD {json.dumps(list(self.command))}", ""])


def _script(text: str) -> dict[str, str]:
    return {"/run.sh": "#!/bin/sh\nset -e\n" + text}


_WORDS = "apple breeze candle desert ember forest garden harbor island jungle kettle lantern meadow nectar orchid pepper quartz river saddle timber"
_CUSTOMERS = "Jones Smith Adams Baker Jones Clark Smith Davis Evans Adams Frank Jones"


def _fleet(step: str, then: str) -> Recipe:
    """Shows on stderr what it was told, and changes nothing anywhere."""
    return Recipe(("/run.sh",), _script(f'echo "{step}: $NODE_COUNT nodes of $VM_SIZE in $REGION for $REMOTE_TARGET_NAME" >&2\n{then}\n'))


RECIPES: Mapping[str, Recipe] = {
    "centurylink/randword": Recipe(
        ("/run.sh",),
        _script('n="${WORD_COUNT:-10}"\nwhile [ "$n" -gt 0 ]; do shuf -n 1 /words; n=$((n - 1)); done\n') | {"/words": _WORDS.replace(" ", "\n") + "\n"},
        pull=True,
    ),
    "centurylink/upper": Recipe(("tr", "a-z", "A-Z"), pull=True),
    "centurylink/reverse": Recipe(("rev",), pull=True),
    "examples/customers": Recipe(("cat", "/customers.txt"), {"/customers.txt": _CUSTOMERS.replace(" ", "\n") + "\n"}),
    "examples/sort": Recipe(("sort",)),
    "examples/uniq": Recipe(("uniq",)),
    "examples/count": Recipe(("wc", "-l")),
    "examples/on-stderr": Recipe(("/run.sh",), _script('echo "this is only logged"\necho "this is passed on" >&2\n')),
    "examples/to-file": Recipe(("/run.sh",), _script('echo "this is only logged"\nprintf "this is\\npassed on\\n" > /output.txt\n')),
    "examples/between-delimiters": Recipe(
        ("/run.sh",), _script('echo "starting"\necho "-----BEGIN-----"\necho "this is passed on"\necho "-----END-----"\necho "done"\n')
    ),
    "examples/fails": Recipe(("/run.sh",), _script('echo "about to fail" >&2\nexit 3\n')),
    "centurylink/cluster-deploy:aws.fleet": _fleet("create", "echo 10.0.0.1\necho 10.0.0.2"),
    "centurylink/cluster-deploy:agent": _fleet("agent", "sed 's/$/ agent/'"),
    "centurylink/remote-agent-install:latest": _fleet("install", "sed 's/$/ installed/'"),
}


def ensure(engine: docker.DockerClient) -> dict[str, str]:
    """Every image of RECIPES is there afterwards; what was done, by image: "present", "pulled" or "built"."""
    reachable, done = True, {}
    for name, recipe in RECIPES.items():
        done[name] = _present(engine, name, recipe)
        if not done[name] and recipe.pull and reachable:
            reachable = _pulled(name)
            done[name] = "pulled" if reachable else ""
        if not done[name]:
            build(engine, name, recipe, {LABEL: digest(recipe)})
            done[name] = "built"
    return done


def build(engine: docker.DockerClient, name: str, recipe: Recipe, labels: Mapping[str, str]) -> None:
    """Raises docker.errors.BuildError."""
    context = _tar([("Dockerfile", 0o644, recipe.dockerfile.encode()), ("base.tar", 0o644, base()), ("files.tar", 0o644, _tar(_members(recipe.files)))])
    engine.images.build(fileobj=io.BytesIO(context), custom_context=True, tag=name, labels=dict(labels), rm=True, forcerm=True)


def digest(recipe: Recipe) -> str:
    """Equal for equal images."""
    found = hashlib.sha256(base())
    for part in (recipe.dockerfile.encode(), _tar(_members(recipe.files))):
        found.update(part)
    return found.hexdigest()[:16]


@functools.cache
def base() -> bytes:
    """busybox with a link for each of its programs, /tmp, and a few users, as a tar. Raises FileNotFoundError."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox is not installed (Debian: apt install busybox-static)")
    program = Path(busybox).read_bytes()
    if b"/ld-" in program[:4096]:  # the name of a dynamic loader
        raise FileNotFoundError("busybox is not static (Debian: apt install busybox-static)")
    programs = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    files = [("bin/busybox", 0o755, program), ("etc/passwd", 0o644, PASSWD), ("etc/group", 0o644, GROUP)]
    return _tar(files, folders={"tmp": 0o1777}, links={f"bin/{name}": "busybox" for name in programs if name != "busybox"})


def _members(files: Mapping[str, str | bytes]) -> Iterator[tuple[str, int, bytes]]:
    """What begins with `#!` can be executed."""
    for path, text in sorted(files.items()):
        content = text.encode() if isinstance(text, str) else text
        yield path.lstrip("/"), 0o755 if content.startswith(b"#!") else 0o644, content


def _tar(files: Iterable[tuple[str, int, bytes]], folders: Mapping[str, int] = _NONE, links: Mapping[str, str] = _NONE) -> bytes:
    """Equal for equal arguments: no times in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, mode in folders.items():
            tar.addfile(_entry(name, mode, tarfile.DIRTYPE))
        for name, mode, content in files:
            entry = _entry(name, mode, tarfile.REGTYPE)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = _entry(name, 0o777, tarfile.SYMTYPE)
            entry.linkname = target
            tar.addfile(entry)
    return out.getvalue()


def _entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type = mode, kind
    return entry


def _present(engine: docker.DockerClient, name: str, recipe: Recipe) -> str:
    """ "present", or "" where it is not, or was built here from another recipe."""
    try:
        made_from = engine.images.get(name).labels.get(LABEL)
    except ImageNotFound:
        return ""
    return "present" if made_from in (None, digest(recipe)) else ""


def _pulled(name: str) -> bool:
    try:
        with_patience = docker.from_env(timeout=PULL_WITHIN)
        try:
            with_patience.images.pull(name, tag="latest")
        finally:
            with_patience.close()
    except (DockerException, requests.RequestException):
        return False
    return True


if __name__ == "__main__":
    client = docker.from_env()
    try:
        for image, how in ensure(client).items():
            print(f"{how:8} {image}")
    except (BuildError, FileNotFoundError) as error:
        raise SystemExit(f"images: {error}") from None
    finally:
        client.close()
