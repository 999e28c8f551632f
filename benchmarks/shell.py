"""The peers on the same engine: `docker run` in a shell, and the bare calls of the engine's API."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker


def run(script: str) -> None:
    """Raises subprocess.CalledProcessError where any command of it fails."""
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def files(images: Sequence[str], folder: Path) -> None:
    """One after the other; each reads the file that the one before wrote."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        inputs = ["/dev/null", *(f"{own}/{number}" for number in range(len(images)))]
        run(" && ".join(f"docker run --rm -i {image} < {inputs[at]} > {inputs[at + 1]}" for at, image in enumerate(images)))


def pipe(images: Sequence[str]) -> None:
    """All at once, as a pipe."""
    run(" | ".join(f"docker run --rm -i {image}" for image in images) + " > /dev/null")


def many(images: Sequence[str], folder: Path, jobs: int, at_a_time: int) -> None:
    """`files` so many times, so many at a time."""
    with ThreadPoolExecutor(at_a_time) as pool:
        for done in [pool.submit(files, images, folder) for _ in range(jobs)]:
            done.result()


def bare(engine: docker.DockerClient, images: Sequence[str]) -> None:
    """The fewest calls that run a container and learn its end, one container after the other; no byte of data moves."""
    for image in images:
        container = engine.api.create_container(image)["Id"]
        engine.api.start(container)
        engine.api.wait(container)
        engine.api.remove_container(container)
