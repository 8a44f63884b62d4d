"""Write files so that a reader sees the whole file or none of it, even when the power fails. Plain Python."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

TEMPORARY = ".tmp-"
READ_BYTES = 1 << 20


def write_durably(path: Path, content: bytes | memoryview) -> str:
    """Write `content` to `path` as a whole and return its sha256.

    The bytes go to a temporary file in the same folder, are synced, read back and compared; only then does
    the file get its name, and the folder is synced too.

    Raises:
        OSError: nothing was written under that name; an older file of that name is as it was.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY}{os.getpid()}")
    expected = hashlib.sha256(content).hexdigest()
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if sha256_of(temporary) != expected:
            raise OSError(f"{path.name} does not read back as it was written")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return expected


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary_files(folder: Path) -> list[str]:
    """Delete what writes that were killed have left in a folder; return the names."""
    stale = sorted(folder.glob(f"*{TEMPORARY}*"))
    for path in stale:
        path.unlink(missing_ok=True)
    return [path.name for path in stale]
