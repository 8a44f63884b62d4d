"""What an archive may cost, and how it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from detection.errors import ArchiveError

MIB = 1024**2
GIB = 1024**3


class ArchiveFault(StrEnum):
    """Why an archive is refused as a whole: the `code` of an ArchiveError."""

    KIND = "archive_kind"
    """Not a zip, tar, tar.gz or tar.zst."""
    PATH = "archive_path"
    """A name that leads outside, or that no file should have."""
    ENTRY = "archive_entry"
    """Something that is neither a regular file nor a folder."""
    DUPLICATE = "archive_duplicate"
    """One name twice, or both as a file and as a folder."""
    BOMB = "archive_bomb"
    """Expands far more than pictures and labels do."""
    TOO_LARGE = "archive_too_large"
    """More bytes than allowed, in one file or in all."""
    TOO_MANY = "archive_too_many"
    """More entries than allowed."""
    ENCRYPTED = "archive_encrypted"
    METHOD = "archive_method"
    """Compressed in a way that is not read here."""
    DAMAGED = "archive_damaged"
    """Cut off, contradicting itself, or with a wrong checksum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Upper bounds, all checked while unpacking, never taken from what the archive says about itself."""

    max_entries: int = 500_000
    max_file_bytes: int = 4 * GIB
    max_total_bytes: int = 100 * GIB
    max_ratio: float = 200.0
    """Bytes written per byte read, for the archive as a whole; JSON and plain masks stay below."""
    free_bytes: int = 64 * MIB
    """So much may come out whatever the ratio."""


class Budget:
    """Counts what an archive has cost so far; raises as soon as it costs too much."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._entries = 0
        self._read_bytes = 0
        self._unpacked_bytes = 0
        self._written_bytes = 0

    def add_entry(self, name: str) -> None:
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise ArchiveError(ArchiveFault.TOO_MANY, name, f"more than {self._limits.max_entries:,} entries")

    def add_unpacked(self, *, read_bytes: int, unpacked_bytes: int) -> None:
        """Count what a decompressor took and gave."""
        self._read_bytes += read_bytes
        self._unpacked_bytes += unpacked_bytes
        if self._unpacked_bytes > self._limits.free_bytes + self._limits.max_ratio * self._read_bytes:
            problem = (
                f"it expands more than {self._limits.max_ratio:g} times, which no pictures and labels do"
            )
            raise ArchiveError(ArchiveFault.BOMB, "", problem)

    def add_written(self, name: str, *, file_bytes: int, new_bytes: int) -> None:
        """Count `new_bytes` of a file that now has `file_bytes`."""
        self._written_bytes += new_bytes
        if file_bytes > self._limits.max_file_bytes:
            problem = f"a file larger than {self._limits.max_file_bytes:,} bytes"
            raise ArchiveError(ArchiveFault.TOO_LARGE, name, problem)
        if self._written_bytes > self._limits.max_total_bytes:
            problem = f"more than {self._limits.max_total_bytes:,} bytes when unpacked"
            raise ArchiveError(ArchiveFault.TOO_LARGE, name, problem)
