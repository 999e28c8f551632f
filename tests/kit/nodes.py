"""What the nodes of a cluster on this machine need to run jobs: a registry they pull from, with images of tests and our own in it."""

from __future__ import annotations

import io
import tarfile

import docker

from dray import runner
from images import Recipe
from kit.images import Images
from kit.registry import Registry


class NodeImages:
    """Pushes an image when it is first asked for."""

    def __init__(self, engine: docker.DockerClient) -> None:
        self._registry = Registry(engine)
        self.address = self._registry.address
        self._pushed: dict[str, str] = {}
        self.ours = self.of(self._our_image(engine))

    def of(self, image: str) -> str:
        """The reference by which a node pulls an image that the engine has."""
        if image not in self._pushed:
            self._pushed[image] = self._registry.push(image, image.rpartition("/")[2].partition(":")[0])
        return self._pushed[image]

    def remove(self) -> None:
        self._registry.remove()

    def _our_image(self, engine: docker.DockerClient) -> str:
        """The runner and nothing else."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as writer:
            entry, program = tarfile.TarInfo("dray-runner"), runner.binary()
            entry.mode, entry.size = 0o755, len(program)
            writer.addfile(entry, io.BytesIO(program))
        engine.api.import_image_from_data(archive.getvalue(), repository="dray-test/runner", tag="latest")
        return "dray-test/runner"


class ImagesOnNodes(Images):
    """The same images, by the references that nodes pull them by."""

    def __init__(self, engine: docker.DockerClient, nodes: NodeImages) -> None:
        super().__init__(engine)
        self._nodes = nodes

    def _made(self, recipe: Recipe) -> str:
        return self._nodes.of(super()._made(recipe))
