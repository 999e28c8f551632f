"""What is known of one job's pod, so that a look costs no call when nothing changed.

The engine's list of the pod's containers is asked for once; from then on the engine's events and this backend's own
calls keep it, and only what they leave in doubt makes it stale. What lies in the volume is asked of the agent each time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dray import runner
from dray.backends.agent import Agent
from dray.backends.docker import names
from dray.backends.docker.engine import Engine, Missing
from dray.backends.docker.images import Found
from dray.pod import Box, Fault, Image, Key, Pod, Shape, Stage

_STAGES = {"created": Stage.MADE, "running": Stage.RUNNING, "paused": Stage.RUNNING, "restarting": Stage.RUNNING}  # any other: ended
NEVER = "0001-01-02"  # a time of the engine's that is none


@dataclass(frozen=True)
class Container:
    """What the engine says of a box or a sandbox. `told`: how it ended is the word of an event."""

    id: str
    stage: Stage
    network: str
    code: int | None = None
    oom: bool = False
    told: bool = False


@dataclass
class View:
    """`containers` by (step, attempt), the sandbox under None; None as a whole: ask again.

    `died`, `oomed`: what events said of containers, by id: one may come before the call that made the container is
    answered, and a list that is asked for just after it may still show the container running (Docker 20.10).
    `launching`, `going`: tasks in which boxes are made and started, and containers removed, by id: soon, or when the pod is `closing`.
    """

    pod: str
    containers: dict[Key | None, Container] | None = None
    died: dict[str, int] = field(default_factory=dict)
    oomed: set[str] = field(default_factory=set)
    doubted: bool = True  # inspect what is listed as running too
    changes: int = 0  # counts what made `containers` stale, so that a list asked for before it is not kept
    agent: Agent | None = None
    traces: dict[Key, runner.Traces] = field(default_factory=dict)
    launching: dict[Key, asyncio.Task[None]] = field(default_factory=dict)
    going: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: Counter[Key] = field(default_factory=Counter)  # how often a start was refused
    images: dict[Key, Found | Fault | None] = field(default_factory=dict)  # None: being pulled

    def stale(self) -> None:
        self.containers = None
        self.changes += 1

    def learn(self, key: Key | None, container: Container) -> None:
        """A container that this backend has made or started."""
        if self.containers is not None:
            self.containers[key] = container

    def forget(self, container: str) -> bool:
        """A container that was removed, by its id; False: that was known."""
        if self.containers is None:
            self.changes += 1
            return True
        known = len(self.containers)
        self.containers = {key: each for key, each in self.containers.items() if each.id != container}
        return len(self.containers) < known

    def known(self) -> dict[Key | None, Container]:
        """The containers, with what events said of them."""
        assert self.containers is not None
        for key, container in self.containers.items():
            if container.stage is not Stage.ENDED and container.id in self.died:
                self.containers[key] = replace(container, stage=Stage.ENDED, code=self.died[container.id], oom=container.id in self.oomed, told=True)
        return self.containers

    def reap(self) -> None:
        """What was begun in the background and has ended. Raises what a launch met."""
        for container in [container for container, removing in self.going.items() if removing.done()]:
            if self.going.pop(container).exception() is not None:
                self.stale()
        for key in [key for key, launching in self.launching.items() if launching.done()]:
            self.launching.pop(key).result()

    def image(self, key: Key) -> Image | Fault:
        found = self.images[key]
        if found is None:
            return Image.PULLING
        return Image.READY if isinstance(found, Found) else found

    async def hang_up(self) -> None:
        if self.agent is not None:
            agent, self.agent = self.agent, None
            await agent.close()


async def look(engine: Engine, view: View, agent: Agent | None) -> Pod:
    """The pod, given the agent that answers for its volume; without one only what the engine knows."""
    containers = _with_launching(view, await listed(engine, view))
    sandbox = containers.get(None)
    images = {key: view.image(key) for key in view.images}
    if sandbox is None or agent is None:
        boxes = {key: Box(found.stage, found.code, found.oom) for key, found in containers.items() if key}
        return Pod(Shape.SHUT, boxes, images)
    listing = await agent.look()
    view.traces = runner.traces(listing)
    keys = {key for key in (*containers, *view.traces) if key}
    boxes = {key: _box(containers.get(key), view.traces.get(key, runner.Traces()), sandbox) for key in keys}
    marks = runner.marks(listing)
    return Pod(Shape.OPEN, boxes, images, marks, runner.verdicts(listing), runner.given(listing), runner.holds_input(listing))


def _with_launching(view: View, containers: Mapping[Key | None, Container]) -> Mapping[Key | None, Container]:
    """Boxes under way to their gates pass for being there."""
    sandbox = containers.get(None)
    if sandbox is None:
        return containers
    under_way = {key for key in view.launching if key not in containers or containers[key].stage is Stage.MADE}
    return {**containers, **{key: Container("", Stage.RUNNING, f"container:{sandbox.id}") for key in under_way}}


async def listed(engine: Engine, view: View) -> Mapping[Key | None, Container]:
    """The pod's containers, asked for where they are not known."""
    if view.containers is None:
        await _list(engine, view)
    containers = view.known()
    for key, container in list(containers.items()):
        if container.told and container.code != 0 and not container.oom:  # an event tells of memory only where it can
            state = await _state(engine, container.id)
            containers[key] = replace(container, oom=bool(state and state["OOMKilled"]), told=False)
    return containers


async def _list(engine: Engine, view: View) -> None:
    changes, found = None, []
    while changes != view.changes:  # else something went stale while it was asked
        changes = view.changes
        doubted, view.doubted = view.doubted, False
        found = await asyncio.gather(*(_container(engine, summary, doubted) for summary in await engine.containers(f"{names.POD}={view.pod}")))
    view.containers = {key: container for key, container in found if container is not None and container.id not in view.going}


async def _container(engine: Engine, summary: dict[str, Any], doubted: bool) -> tuple[Key | None, Container | None]:
    key, stage = names.key_of(summary["Labels"]), _STAGES.get(summary["State"], Stage.ENDED)
    network = summary["HostConfig"]["NetworkMode"]
    if stage is Stage.MADE or (stage is Stage.RUNNING and not doubted):
        return key, Container(summary["Id"], stage, network)
    state = await _state(engine, summary["Id"])
    if state is None:
        return key, None
    if stage is Stage.RUNNING and state["StartedAt"] > NEVER:
        return key, Container(summary["Id"], stage, network)
    code = None if stage is Stage.RUNNING else state["ExitCode"]  # None: killed in the middle of a start, the engine knows no end of it
    return key, Container(summary["Id"], Stage.ENDED, network, code, state["OOMKilled"])


async def _state(engine: Engine, container: str) -> dict[str, Any] | None:
    try:
        return dict((await engine.ask("GET", f"/containers/{container}/json"))["State"])
    except Missing:
        return None


def _box(container: Container | None, traces: runner.Traces, sandbox: Container) -> Box:
    holds = traces.out is not None
    if container is None:
        return Box(Stage.ABSENT, claimed_at=traces.claimed_at, status=traces.status, holds_output=holds)
    cut_off = container.network != f"container:{sandbox.id}"
    return Box(container.stage, container.code, container.oom, traces.claimed_at, traces.status, cut_off, holds)
