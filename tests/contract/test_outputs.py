"""The output store, on each file system that is at hand: a folder and fsspec's memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dray.errors import BadSetting, NotFound, Unavailable
from dray.outputs import Outputs

MIB = 2**20


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (tmp_path / "not" / "there yet").as_uri() if request.param == "file" else f"memory://{tmp_path}"


async def _blocks(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def _breaking(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block
    raise Unavailable("the engine went away")


async def _read(outputs: Outputs, job_id: str) -> bytes:
    return b"".join([block async for block in outputs.read(job_id)])


@pytest.mark.parametrize("blocks", [(), (b"",), (b"a\0\xff\r\n",), (b"a", b"", b"b" * MIB, b"c" * (MIB + 1))])
def test_an_output_comes_back_as_it_was(url: str, blocks: tuple[bytes, ...]) -> None:
    async def tested() -> None:
        whole = b"".join(blocks)
        assert await Outputs(url).put("A", _blocks(*blocks)) == len(whole)
        assert await _read(Outputs(url), "A") == whole

    asyncio.run(tested())


def test_a_large_output_is_read_in_blocks(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", _blocks(*[b"x" * MIB] * 5, b"y"))
        sizes = [len(block) async for block in outputs.read("A")]
        assert sum(sizes) == 5 * MIB + 1
        assert max(sizes) <= MIB

    asyncio.run(tested())


def test_each_job_has_its_own(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", _blocks(b"a"))
        await outputs.put("B", _blocks(b"b"))
        assert (await _read(outputs, "A"), await _read(outputs, "B")) == (b"a", b"b")

    asyncio.run(tested())


def test_an_output_replaces_an_earlier_one(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", _blocks(b"long" * 1000))
        assert await outputs.put("A", _blocks(b"short")) == 5
        assert await _read(outputs, "A") == b"short"

    asyncio.run(tested())


def test_an_output_that_is_not_there_is_not_found_at_the_first_block(url: str) -> None:
    async def tested() -> None:
        with pytest.raises(NotFound):
            await anext(Outputs(url).read("A"))

    asyncio.run(tested())


def test_half_an_output_never_has_its_name(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        with pytest.raises(Unavailable, match="went away"):
            await outputs.put("A", _breaking(b"half"))
        with pytest.raises(NotFound):
            await _read(outputs, "A")
        assert await outputs.put("A", _blocks(b"whole")) == 5
        assert await _read(outputs, "A") == b"whole"

    asyncio.run(tested())


def test_half_a_new_output_leaves_the_earlier_one(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", _blocks(b"earlier"))
        with pytest.raises(Unavailable):
            await outputs.put("A", _breaking(b"half"))
        assert await _read(outputs, "A") == b"earlier"

    asyncio.run(tested())


def test_removing_leaves_nothing_and_can_be_done_twice(url: str) -> None:
    async def tested() -> None:
        outputs = Outputs(url)
        await outputs.put("A", _blocks(b"a"))
        await outputs.put("B", _blocks(b"b"))
        with pytest.raises(Unavailable):
            await outputs.put("A", _breaking(b"half"))
        for _ in range(2):
            await outputs.remove("A")
            with pytest.raises(NotFound):
                await _read(outputs, "A")
        assert await _read(outputs, "B") == b"b"

    asyncio.run(tested())


def test_a_folder_has_what_was_kept_and_no_more(tmp_path: Path) -> None:
    async def tested() -> None:
        outputs = Outputs(tmp_path.as_uri())
        await outputs.put("A", _blocks(b"a"))
        with pytest.raises(Unavailable):
            await outputs.put("B", _breaking(b"half"))
        await outputs.remove("B")

    asyncio.run(tested())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("A", b"a")]


def test_a_store_that_cannot_write_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    async def tested() -> None:
        with pytest.raises(Unavailable, match="output store"):
            await Outputs((tmp_path / "file" / "outputs").as_uri()).put("A", _blocks(b"a"))

    asyncio.run(tested())


@pytest.mark.parametrize("url", ["nonsense://x", "gopher://x/y"])
def test_a_url_that_nothing_understands_is_a_bad_setting(url: str) -> None:
    with pytest.raises(BadSetting, match="DRAY_OUTPUTS"):
        Outputs(url)
