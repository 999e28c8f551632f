"""Dray's own image, and a Redis image to stand beside it, built as a person would, on a Debian that debootstrap makes: no image is pulled.

The Debian stays on the engine as a cache, named by what went into it; the engine's own cache sees to the rest.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from kit.require import missing

ROOT = Path(__file__).parents[2]
_HERE = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]  # another checkout on the same engine makes others
DRAY, RUNNER, REDIS = (f"dray-test/{name}:{_HERE}" for name in ("dray", "runner", "redis"))
_PACKAGES = "python3,python3-venv,ca-certificates"
_TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")  # this machine's: it may reach PyPI by way of an authority of its own
_LEFT_OUT = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man", "dev")
_REDIS = """\
FROM {base}
RUN apt-get update && apt-get install -y --no-install-recommends redis-server && rm -r /var/lib/apt/lists/*
EXPOSE 6379
ENTRYPOINT ["sh", "-c", "exec \\"$0\\" \\"$@\\" --protected-mode no"]
CMD ["redis-server"]
"""


def dray(engine: docker.DockerClient) -> str:
    """The name of the image that the Dockerfile makes."""
    return build(DRAY, "--build-arg", f"BASE={debian(engine)}")


def runner(engine: docker.DockerClient) -> str:
    """The name of the image with the native program alone."""
    return build(RUNNER, "--build-arg", f"BASE={debian(engine)}", "--target", "runner")


def redis(engine: docker.DockerClient) -> str:
    """The name of an image that stands in for the official `redis`."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(_REDIS.format(base=debian(engine)))
        return build(REDIS, folder=folder)


def build(name: str, *options: str, folder: str | Path = ROOT) -> str:
    """`docker build`; the name."""
    command = ["docker", "build", "--tag", name, "--label", "dray.test=1", *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | {"DOCKER_BUILDKIT": "0"}, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return name


def debian(engine: docker.DockerClient) -> str:
    """The name of an image of this machine's Debian with Python in it."""
    if os.geteuid() != 0 or not shutil.which("debootstrap") or not shutil.which("docker"):
        missing("docker", "making a base image takes root, debootstrap and docker (Debian: apt install debootstrap docker.io)")
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    name = f"dray-test/debian:{hashlib.sha256(f'{suite} {_PACKAGES}'.encode() + _TRUSTED.read_bytes()).hexdigest()[:16]}"
    try:
        engine.images.get(name)
    except ImageNotFound:
        _make_debian(suite, name)
    return name


def _make_debian(suite: str, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="dray-debian-") as folder:
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout[-4000:]
        shutil.copy(_TRUSTED, f"{folder}{_TRUSTED}")
        left_out = [f"--exclude=./{path}/*" for path in _LEFT_OUT]
        with subprocess.Popen(["tar", "-C", folder, *left_out, "-c", "."], stdout=subprocess.PIPE) as packing:
            subprocess.run(["docker", "import", "-", name], stdin=packing.stdout, capture_output=True, check=True, timeout=300)
        assert packing.returncode == 0
