"""Images for tests: a static busybox and what a test adds, named by their content, so that each is built once per engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import docker
from docker.errors import ImageNotFound

from images import Recipe, build, digest


class Images:
    """Calling it makes sure of an image and returns its name. Images stay, as a cache: `docker image prune -a --filter label=dray.test` drops them."""

    def __init__(self, engine: docker.DockerClient) -> None:
        self.engine = engine

    def __call__(  # one keyword for each thing an image has
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        workdir: str | None = None,
        files: Mapping[str, str | bytes] | None = None,
        entrypoint: Sequence[str] | None = None,
        volumes: Sequence[str] = (),
    ) -> str:
        """`files` by absolute path; what begins with `#!` can be executed. Users there are: root, user (1000), nobody (65534)."""
        lines = [f"ENV {name}={_quoted(value)}" for name, value in (env or {}).items()]
        lines += [f"WORKDIR {workdir}"] if workdir else []
        lines += [f"USER {user}"] if user else []
        lines += [f"VOLUME {json.dumps(list(volumes))}"] if volumes else []
        lines += [f"ENTRYPOINT {json.dumps(list(entrypoint))}"] if entrypoint else []
        return self._made(Recipe(command, files or {}, lines))

    def shell(self, script: str) -> str:
        """An image that runs a shell script."""
        return self("sh", "-c", script)

    def _made(self, recipe: Recipe) -> str:
        name = f"dray-test/{digest(recipe)}"
        try:
            self.engine.images.get(name)
        except ImageNotFound:
            build(self.engine, name, recipe, {"dray.test": "1"})
        return name


def _quoted(value: str) -> str:
    """As a Dockerfile takes it literally; one line."""
    for special in ("\\", '"', "$"):
        value = value.replace(special, "\\" + special)
    return f'"{value}"'
