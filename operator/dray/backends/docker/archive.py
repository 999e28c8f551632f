"""tar archives, in which files reach a container or an image."""

from __future__ import annotations

import io
import tarfile


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


def unpacked(archive: bytes, name: str) -> bytes | None:
    """The content of a file in an archive; None where it is no file."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        file = reader.extractfile(name)
        return file.read() if file else None


def empty_file(path: str) -> bytes:
    """An archive that lays an empty file, writable by all, at an absolute path of a container."""
    return packed({path.lstrip("/"): (0o666, b"")})
