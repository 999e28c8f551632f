"""tar archives, in which files reach a container or an image."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator

_BLOCK = 512


class WrongSize(Exception):
    """The content of a file has not as many bytes as was said."""


def packed(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive of name → (mode, content); a name with a final slash is a directory."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for name, (mode, content) in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.mode, entry.size = mode, len(content)
            writer.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


async def stream(name: str, mode: int, size: int, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """An archive of one file, as its content comes. Raises WrongSize, before the archive is whole."""
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, size
    yield entry.tobuf(tarfile.GNU_FORMAT)
    left = size
    async for block in content:
        left -= len(block)
        if left < 0:
            break
        yield block
    if left != 0:
        raise WrongSize(f"{name} has not {size} bytes")
    yield bytes(-size % _BLOCK + 2 * _BLOCK)


def unpacked(archive: bytes, name: str) -> bytes | None:
    """The content of a file in an archive; None where it is no file."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        file = reader.extractfile(name)
        return file.read() if file else None


def empty_file(path: str) -> bytes:
    """An archive that lays an empty file, writable by all, at an absolute path of a container."""
    return packed({path.lstrip("/"): (0o666, b"")})
