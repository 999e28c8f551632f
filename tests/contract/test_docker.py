"""The Docker backend: what only a real engine has. Limits, mounts, networks, memory, uploads, events."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backend_kit import WITHIN, Bench, BrokenOffError, DockerLab, blocks, broken_off, claimed, claims, ended, half_done, on_a_loop, output

from dray.backends import Launching
from dray.fields import Limits
from dray.pod import Fault, Pod, Shape, Stage
from dray.reason import Reason
from dray.record import Job
from kit.images import Images

KEY = (0, 1)


@pytest.fixture
def lab(engine: Any, image: Images, monkeypatch: pytest.MonkeyPatch) -> DockerLab:
    return DockerLab(engine, image, monkeypatch)


@pytest.fixture
def volume(engine: Any) -> Iterator[str]:
    """The name of a volume that steps mount."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    for found in engine.volumes.list(filters={"label": f"dray.volume={name}"}):
        found.remove()


def fault(pod: Pod) -> Fault | None:
    found = pod.images.get(KEY)
    return found if isinstance(found, Fault) else None


def host_config(lab: DockerLab, job: Job) -> dict[str, Any]:
    return dict(lab.engine.containers.get(f"{job.pod}-0-1").attrs["HostConfig"])


# --- what a step asks for


@on_a_loop
async def test_a_step_runs_its_own_command_where_and_with_what_it_says(lab: DockerLab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened({"source": "hello", "command": ["sh", "-c", 'echo "$0 $1 $PWD $WORD"'], "args": ["one", "two words"], "workdir": "/etc"})
        await bench.launch(job, 0, Launching({"WORD": "a=b c"}))
        await bench.until(job, ended(0))
        assert await output(bench.backend, job, 0) == b"one two words /etc a=b c\n"


@on_a_loop
async def test_a_masked_variable_is_in_no_log(lab: DockerLab) -> None:
    async with Bench(lab) as bench:
        job = await bench.opened('echo "it is $KEY"')
        await bench.launch(job, 0, Launching({"KEY": "open sesame"}, masked=("KEY",)))
        await bench.until(job, ended(0))
        log = await bench.backend.read_log(job, KEY, 0)
        assert b"it is " in log
        assert b"sesame" not in log


@on_a_loop
async def test_a_step_gets_its_limits_the_defaults_and_one_process_more_for_the_runner(lab: DockerLab) -> None:
    lab.settings = replace(lab.settings, limits=Limits(cpu=500, memory=64 * 2**20), limits_max=Limits(cpu=250))
    async with Bench(lab) as bench:
        job = await bench.launched({"source": "hello", "resources": {"pids": 7}})
        await bench.until(job, claimed(0))
        found = host_config(lab, job)
        assert [found[name] for name in ("NanoCpus", "Memory", "MemorySwap", "PidsLimit")] == [250_000_000, 2**26, 2**26, 8]
        pod = await bench.until(job, ended(0))
        assert pod.boxes[KEY].code == 0


@pytest.mark.parametrize(
    ("script", "code"),
    [("exec tail /dev/zero", 137), ("tail /dev/zero; exit $?", 137), ("tail /dev/zero; exit 5", 5), ("tail /dev/zero; exit 0", 0)],
    ids=["the command itself", "its child", "its child, and it hides that", "its child, and it does without"],
)
@on_a_loop
async def test_a_process_killed_for_memory_is_told(lab: DockerLab, script: str, code: int) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched({"source": script, "resources": {"memory": "16Mi"}})
        box = (await bench.until(job, ended(0))).boxes[KEY]
        assert box.status is not None
        assert (box.oom, box.code, box.status.exit) == (True, code, code)
        async with Bench(lab, bench.instance) as another:
            assert (await another.backend.look(job)).boxes[KEY] == box


# --- mounts


@on_a_loop
async def test_a_named_volume_outlives_its_job_and_no_sweep_takes_it(lab: DockerLab, volume: str) -> None:
    async with Bench(lab) as bench:
        writer = await bench.launched({"source": "echo kept > /keep/file", "mounts": [{"volume": volume, "path": "/keep"}]})
        await bench.until(writer, ended(0))
        await bench.backend.close(writer)
        await bench.backend.sweep(claims())
        script = "cat /keep/file; touch /keep/other 2>/dev/null || echo read-only"
        reader = await bench.launched({"source": script, "mounts": [{"volume": volume, "path": "/keep", "readOnly": True}]})
        await bench.until(reader, ended(0))
        assert await output(bench.backend, reader, 0) == b"kept\nread-only\n"


@on_a_loop
async def test_no_other_volume_of_the_engine_is_reached_by_its_name(lab: DockerLab, volume: str) -> None:
    async with Bench(lab) as bench:
        await bench.until(await bench.launched({"source": "hello", "mounts": [{"volume": volume, "path": "/keep"}]}), ended(0))
        assert [found.name for found in lab.engine.volumes.list(filters={"name": volume})] == [f"dray-volume-{volume}"]


@on_a_loop
async def test_a_folder_of_the_host(lab: DockerLab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    async with Bench(lab) as bench:
        job = await bench.launched({"source": "cat /here/file; touch /here/new", "mounts": [{"hostPath": str(tmp_path), "path": "/here"}]})
        await bench.until(job, ended(0))
        assert await output(bench.backend, job, 0) == b"of the host\n"
        assert (tmp_path / "new").exists()
        missing = await bench.launched({"source": "hello", "mounts": [{"hostPath": str(tmp_path / "none"), "path": "/here"}]})
        found = fault(await bench.until(missing, fault))
        assert found is not None
        assert found.reason is Reason.START_FAILED
        assert str(tmp_path / "none") in found.message


# --- networks


@on_a_loop
async def test_a_job_without_a_network_has_none(lab: DockerLab) -> None:
    async with Bench(lab) as bench:
        job = await bench.launched("ls /sys/class/net", network="none")
        await bench.until(job, ended(0))
        assert await output(bench.backend, job, 0) == b"lo\n"


@on_a_loop
async def test_a_job_joins_the_network_that_it_names(lab: DockerLab) -> None:
    network = lab.engine.networks.create(f"test-{secrets.token_hex(4)}")
    try:
        async with Bench(lab) as bench:
            job = await bench.launched("sleeps", network=network.name)
            await bench.until(job, claimed(0))
            network.reload()
            assert [found.name for found in network.containers] == [f"{job.pod}-sandbox"]
    finally:
        network.remove()


@pytest.mark.parametrize("network", ["no-such-network", "host"])
@on_a_loop
async def test_a_network_that_cannot_be_joined_is_a_fault_that_names_it(lab: DockerLab, network: str) -> None:
    async with Bench(lab) as bench:
        job = bench.job("hello")
        job = replace(job, spec=job.spec.model_copy(update={"network": network}))
        job = replace(job, pod=await bench.backend.open(job))
        bench.jobs.append(job)
        await bench.launch(job, 0)
        found = fault(await bench.until(job, fault))
        assert found is not None
        assert found.reason is Reason.START_FAILED
        assert f"network {network}:" in found.message


# --- seeds


@on_a_loop
async def test_an_upload_that_broke_off_is_made_anew(lab: DockerLab) -> None:
    given = b"0123456789abcde\n" * 200_000
    async with Bench(lab) as bench:
        job = await bench.opened("hello", "double")
        job = half_done(job, given)
        await bench.backend.look(job)
        with pytest.raises(BrokenOffError):
            await bench.backend.seed(job, 0, broken_off(given[:2_000_000]))
        assert [box.status for box in (await bench.backend.look(job)).boxes.values() if box.status] == []
        await bench.backend.seed(job, 0, blocks(given))
        await bench.launch(job, 1)
        await bench.until(job, ended(1))
        assert await output(bench.backend, job, 1) == given * 2


@pytest.mark.parametrize("given", [b"x" * 100, b"x" * 3_000_000], ids=["small", "large"])
@pytest.mark.parametrize("more", [-1, 1])
@on_a_loop
async def test_what_is_not_as_long_as_recorded_is_nobodys_input(lab: DockerLab, given: bytes, more: int) -> None:
    async with Bench(lab) as bench:
        job = half_done(await bench.opened("hello", "double"), given)
        await bench.backend.look(job)
        await bench.backend.seed(job, 0, blocks(given, given[:more]) if more > 0 else blocks(given[:more]))
        await bench.launch(job, 1)
        status = (await bench.until(job, ended(1))).boxes[1, 1].status
        assert status is not None
        assert status.error == "input"


# --- events


@on_a_loop
async def test_an_event_of_a_container_that_is_no_jobs_harms_nothing(lab: DockerLab) -> None:
    async with Bench(lab) as bench:
        labels = {"dray.instance": bench.instance}
        foreign = lab.engine.containers.run(lab.source("sleeps"), detach=True, labels=labels)
        job = await bench.launched("sleeps")
        await bench.until(job, claimed(0))
        foreign.remove(force=True)
        lab.engine.containers.get(f"{job.pod}-0-1").kill()
        async with asyncio.timeout(WITHIN / 4):  # sooner than anything but an event could tell
            async for woken in bench.backend.wakes():
                if woken == job.id and (await bench.backend.look(job)).boxes[KEY].code == 137:
                    break


# --- sandboxes made ahead


@on_a_loop
async def test_a_job_takes_a_sandbox_made_ahead_and_another_is_made(lab: DockerLab) -> None:
    lab.settings = replace(lab.settings, sandboxes=1)
    async with Bench(lab) as bench:
        (ready,) = await _ahead(lab, bench, 1)
        job = await bench.launched("hello", "double")
        assert job.pod == ready
        await bench.until(job, ended(0, 1))
        assert await output(bench.backend, job, 1) == b"hello\n" * 2
        await _ahead(lab, bench, 2)
        await bench.backend.close(job)
        (other,) = await _ahead(lab, bench, 1)
        assert other != ready


@on_a_loop
async def test_each_job_has_a_sandbox_of_its_own_whether_one_is_ready_or_not(lab: DockerLab) -> None:
    lab.settings = replace(lab.settings, sandboxes=1)
    async with Bench(lab) as bench:
        await _ahead(lab, bench, 1)
        jobs = await asyncio.gather(*(bench.launched("hostname") for _ in range(3)))
        for job in jobs:
            await bench.until(job, ended(0))
        assert len({job.pod for job in jobs}) == 3
        assert len({await output(bench.backend, job, 0) for job in jobs}) == 3


@on_a_loop
async def test_another_operator_finds_the_sandbox_a_job_took_by_the_record_alone(lab: DockerLab) -> None:
    lab.settings = replace(lab.settings, sandboxes=1)
    async with Bench(lab) as first:
        await _ahead(lab, first, 1)
        job = await first.launched("sleeps")
        await first.until(job, claimed(0))
        async with Bench(lab, first.instance) as second:
            await second.backend.sweep(claims(job))
            pod = await second.backend.look(job)
            assert (pod.shape, pod.boxes[KEY].stage) == (Shape.OPEN, Stage.RUNNING)
            await second.backend.close(job)
            assert await second.backend.look(job) == Pod()


@on_a_loop
async def test_a_sandbox_taken_but_never_recorded_is_swept_once_its_operator_is_gone(lab: DockerLab) -> None:
    lab.settings = replace(lab.settings, sandboxes=1)
    async with Bench(lab) as gone, Bench(lab, gone.instance) as alive:
        (taken,) = await _ahead(lab, gone, 1)
        job = gone.job("hello")
        assert await gone.backend.open(job) == taken
        await gone.backend.sweep(claims(job, operators=[gone.operator, alive.operator]))
        await alive.backend.sweep(claims(job, operators=[gone.operator, alive.operator]))
        assert _is_there(lab, taken)
        await alive.backend.sweep(claims(job, operators=[alive.operator]))
        assert not _is_there(lab, taken)


@on_a_loop
async def test_a_sandbox_made_ahead_that_died_is_replaced(lab: DockerLab) -> None:
    lab.settings = replace(lab.settings, sandboxes=1)
    async with Bench(lab) as bench:
        (dead,) = await _ahead(lab, bench, 1)
        lab.engine.containers.get(f"{dead}-sandbox").kill()
        while [dead] == (now := await _ahead(lab, bench, 1)):
            pass
        (replaced,) = now
        job = await bench.launched("hello")
        await bench.until(job, ended(0))
        assert job.pod == replaced != dead


@on_a_loop
async def test_nothing_made_ahead_outlives_its_operators_good_end(lab: DockerLab) -> None:
    lab.settings = replace(lab.settings, sandboxes=2)
    async with Bench(lab) as bench:
        pods = await _ahead(lab, bench, 2)
    assert not any(_is_there(lab, pod) for pod in pods)


async def _ahead(lab: DockerLab, bench: Bench, count: int) -> list[str]:
    """The pods made ahead by the bench's operator, taken or not, once there are so many and they run."""
    label = {"label": f"dray.operator={bench.operator}"}
    async with asyncio.timeout(WITHIN):
        while True:
            found = await asyncio.to_thread(lab.engine.containers.list, filters=label)
            if len(found) == count:
                await asyncio.sleep(0.05)  # until its operator knows, too
                return [str(each.labels["dray.pod"]) for each in found]
            await asyncio.sleep(0.05)


def _is_there(lab: DockerLab, pod: str) -> bool:
    label = {"label": f"dray.pod={pod}"}
    return bool(lab.engine.containers.list(all=True, filters=label) or lab.engine.volumes.list(filters=label))
