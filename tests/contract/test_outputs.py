"""The output store, on each file system that is at hand: a folder, fsspec's memory, and a bucket of a real S3 server."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dray.errors import BadSetting, Full, NotFound, Unavailable
from dray.outputs import Outputs
from kit.bucket import Bucket

MIB = 2**20


@pytest.fixture(params=["file", "memory", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        return (tmp_path / "not" / "there yet").as_uri()
    if request.param == "memory":
        return f"memory://{tmp_path}"
    bucket: Bucket = request.getfixturevalue("shared_bucket")
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return f"{bucket.url}{tmp_path}"


async def _blocks(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def _breaking(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block
    raise Unavailable("the engine went away")


async def _read(outputs: Outputs, job_id: str, step: int | str = 0) -> bytes:
    return b"".join([block async for block in outputs.read(job_id, step)])


@pytest.mark.parametrize("blocks", [(), (b"",), (b"a\0\xff\r\n",), (b"a", b"", b"b" * MIB, b"c" * (MIB + 1))])
def test_an_output_comes_back_as_it_was(url: str, blocks: tuple[bytes, ...]) -> None:
    async def tested() -> None:
        whole = b"".join(blocks)
        assert await Outputs(url).put("A", 0, _blocks(*blocks)) == len(whole)
        assert await _read(Outputs(url), "A") == whole

    asyncio.run(tested())


def test_a_large_output_is_read_in_blocks(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", 0, _blocks(*[b"x" * MIB] * 5, b"y"))
        sizes = [len(block) async for block in outputs.read("A", 0)]
        assert sum(sizes) == 5 * MIB + 1
        assert max(sizes) <= MIB

    asyncio.run(tested())


def test_each_step_of_each_job_has_its_own(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        for job_id, step, output in (("A", 0, b"a"), ("A", 10, b"a10"), ("B", 0, b"b")):
            await outputs.put(job_id, step, _blocks(output))
        assert (await _read(outputs, "A"), await _read(outputs, "A", 10), await _read(outputs, "B")) == (b"a", b"a10", b"b")

    asyncio.run(tested())


def test_an_output_replaces_an_earlier_one(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", 0, _blocks(b"long" * 1000))
        assert await outputs.put("A", 0, _blocks(b"short")) == 5
        assert await _read(outputs, "A") == b"short"

    asyncio.run(tested())


def test_an_output_that_is_not_there_is_not_found_at_the_first_block(url: str) -> None:
    async def tested() -> None:
        with pytest.raises(NotFound):
            await anext(Outputs(url).read("A", 0))

    asyncio.run(tested())


def test_half_an_output_never_has_its_name(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        with pytest.raises(Unavailable, match="went away"):
            await outputs.put("A", 0, _breaking(b"half"))
        with pytest.raises(NotFound):
            await _read(outputs, "A")
        assert await outputs.put("A", 0, _blocks(b"whole")) == 5
        assert await _read(outputs, "A") == b"whole"

    asyncio.run(tested())


def test_half_a_new_output_leaves_the_earlier_one(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", 0, _blocks(b"earlier"))
        with pytest.raises(Unavailable):
            await outputs.put("A", 0, _breaking(b"half"))
        assert await _read(outputs, "A") == b"earlier"

    asyncio.run(tested())


def test_removing_leaves_nothing_and_can_be_done_twice(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", 0, _blocks(b"a"))
        await outputs.put("B", 0, _blocks(b"b"))
        await outputs.put("A", 1, _blocks(b"more"))
        for _ in range(2):
            await outputs.remove("A")
            for step in (0, 1):
                with pytest.raises(NotFound):
                    await _read(outputs, "A", step)
        assert await _read(outputs, "B") == b"b"

    asyncio.run(tested())


def test_a_folder_has_what_was_kept_and_no_more(tmp_path: Path) -> None:
    async def tested() -> None:
        outputs = Outputs(tmp_path.as_uri())
        await outputs.put("A", 0, _blocks(b"a"))
        with pytest.raises(Unavailable):
            await outputs.put("A", 1, _breaking(b"half"))
        (tmp_path / "A" / "2.0123456789ab.partial").write_bytes(b"left by a crash")
        await outputs.put("A", 2, _blocks(b"c"))
        await outputs.put("B", 0, _blocks(b"b"))
        await outputs.remove("B")

    asyncio.run(tested())
    assert {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == {"A/0": b"a", "A/2": b"c"}
    assert [path.name for path in tmp_path.iterdir()] == ["A"]


def test_two_who_write_the_same_output_do_not_mix(url: str) -> None:
    """One of them was paused, and goes on when the other has done it anew."""

    async def tested() -> None:
        first, second, go_on = Outputs(url), Outputs(url), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"slow "
            await go_on.wait()
            yield b"and whole"

        paused = asyncio.create_task(first.put("A", 0, slow()))
        await asyncio.sleep(0.05)
        await second.put("B", 0, _blocks(b"other"))
        await second.put("A", 0, _blocks(b"anew"))
        assert await _read(second, "A") == b"anew"
        go_on.set()
        await asyncio.wait([paused])
        assert await _read(second, "A") in (b"anew", b"slow and whole")

    asyncio.run(tested())


def test_an_output_can_be_copied_to_another_job_and_outlives_the_first(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", 3, _blocks(b"a" * MIB, b"b"))
        assert await outputs.copy("A", "B", 3) == MIB + 1
        await outputs.remove("A")
        assert await _read(outputs, "B", 3) == b"a" * MIB + b"b"
        with pytest.raises(NotFound):
            await outputs.copy("A", "C", 3)

    asyncio.run(tested())


def test_a_store_that_cannot_write_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    async def tested() -> None:
        with pytest.raises(Unavailable, match="output store"):
            await Outputs((tmp_path / "file" / "outputs").as_uri()).put("A", 0, _blocks(b"a"))

    asyncio.run(tested())


def test_a_folder_tells_how_much_room_it_has_though_it_is_not_there_yet(tmp_path: Path) -> None:
    assert abs((asyncio.run(Outputs((tmp_path / "not" / "yet").as_uri()).free()) or 0) - shutil.disk_usage(tmp_path).free) < 2**30
    assert asyncio.run(Outputs("memory://x").free()) is None


def test_many_small_blocks_are_one_output(url: str) -> None:
    async def tested() -> None:
        assert await Outputs(url).put("A", "input", _blocks(*[b"xyz"] * 500_000)) == 1_500_000
        assert await _read(Outputs(url), "A", "input") == b"xyz" * 500_000

    asyncio.run(tested())


def test_a_store_without_room_says_so_and_keeps_no_half(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(Full, match="No space left"):
            asyncio.run(Outputs(tmp_path.as_uri()).put("A", 0, _blocks(b"x" * MIB, b"x" * MIB)))
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("url", ["nonsense://x", "gopher://x/y"])
def test_a_url_that_nothing_understands_is_a_bad_setting(url: str) -> None:
    with pytest.raises(BadSetting, match="DRAY_OUTPUTS"):
        Outputs(url)
