"""Files behind one interface: a reader sees the whole file or none of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol


class Storage(Protocol):
    """Keys are relative paths with forward slashes, made by us, never by a user."""

    def write(self, key: str, content: BinaryIO) -> None:
        """Store `content` under `key`: whole or not at all, and durable when this returns."""

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open for reading, seekable. FileNotFoundError when there is no such key."""

    def size(self, key: str) -> int:
        """Return the number of bytes. FileNotFoundError when there is no such key."""

    def exists(self, key: str) -> bool: ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`."""

    def delete(self, key: str) -> None:
        """Remove one key; one that is not there is no error."""

    def delete_all(self, prefix: str) -> None:
        """Remove every key below `prefix`, which ends with a slash."""

    def local_path(self, key: str, cache: Path) -> Path:
        """Return a path to read the file from; a remote file is first fetched into `cache`."""
