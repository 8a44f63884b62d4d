"""Unpack an uploaded archive into a new folder."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from detection.data.archive.entry import Entry
from detection.data.archive.folder import NewFolder
from detection.data.archive.limits import ArchiveFault, ArchiveLimits, Budget
from detection.data.archive.names import is_junk, safe_parts
from detection.data.archive.sniff import SNIFF_BYTES, sniff_archive
from detection.data.archive.tar_entries import Read, tar_entries
from detection.data.archive.zip_entries import zip_entries
from detection.data.wording import printable
from detection.errors import ArchiveError

MAX_WINDOW_BYTES = 128 * 1024**2
"""Memory that a zstd stream may ask for; what `zstd --long=27` writes."""


def extract_archive(
    path: Path,
    target: Path,
    limits: ArchiveLimits | None = None,
    *,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[str]:
    """Unpack a zip, tar, tar.gz or tar.zst into `target`, and return the files' names in order.

    Nothing is written outside `target`, no link is made or followed, no existing file is replaced. What a
    desktop leaves behind (`__MACOSX`, `.DS_Store`, `Thumbs.db`) is passed over; archives inside the archive
    stay closed. A name that comes twice is refused; names that differ only in case are two files. When an
    error ends the unpacking, what is written so far stays in `target`: its owner removes it.

    Args:
        progress: is told after each file how much of the archive has been read, 0 to 1.

    Raises:
        ArchiveError: the archive is refused as a whole; `code` is an ArchiveFault.
    """
    budget = Budget(limits or ArchiveLimits())
    names = []
    size, furthest = path.stat().st_size, 0
    with path.open("rb") as file, NewFolder(target) as folder:
        for entry in _entries(file, budget):
            parts = safe_parts(entry.name)
            if is_junk(parts):
                continue
            if entry.is_folder:
                folder.make(parts)
            elif not parts:
                raise ArchiveError(ArchiveFault.PATH, printable(entry.name), "a file without a name")
            else:
                name = "/".join(parts)
                folder.write(parts, _counted(name, entry.chunks, budget))
                names.append(name)
                furthest = max(furthest, file.tell())
                progress(min(furthest / size, 1.0))
    return names


def _entries(file: BinaryIO, budget: Budget) -> Iterator[Entry]:
    kind = sniff_archive(file.read(SNIFF_BYTES))
    file.seek(0)
    match kind:
        case "zip":
            return zip_entries(file, budget)
        case "tar":
            return tar_entries(file.read, budget)
        case "tar.gz":
            return tar_entries(_unpacked(file, gzip.GzipFile(fileobj=file).read, budget), budget)
        case "tar.zst":
            reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(
                file, read_across_frames=True
            )
            return tar_entries(_unpacked(file, reader.read, budget), budget)
        case _:
            raise ArchiveError(ArchiveFault.KIND, "", "it is no zip, tar, tar.gz or tar.zst archive")


def _unpacked(file: BinaryIO, read: Read, budget: Budget) -> Read:
    """Return a reader that counts what it takes from the file and what it gives."""
    taken = 0

    def read_counted(size: int) -> bytes:
        nonlocal taken
        try:
            chunk = read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError):
            problem = "it cannot be decompressed: damaged or cut off"
            raise ArchiveError(ArchiveFault.DAMAGED, "", problem) from None
        position = file.tell()
        budget.add_unpacked(read_bytes=position - taken, unpacked_bytes=len(chunk))
        taken = position
        return chunk

    return read_counted


def _counted(name: str, chunks: Iterator[bytes], budget: Budget) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        budget.add_written(name, file_bytes=size, new_bytes=len(chunk))
        yield chunk
