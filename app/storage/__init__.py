"""Files behind one interface: a reader sees the whole file or none of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from app.settings import Settings


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

    def folders(self, prefix: str) -> list[str]:
        """Return the names right below `prefix`, which ends with a slash, that have keys below them."""

    def delete(self, key: str) -> None:
        """Remove one key; one that is not there is no error."""

    def delete_all(self, prefix: str) -> None:
        """Remove every key below `prefix`, which ends with a slash."""

    def local_path(self, key: str, cache: Path) -> Path:
        """Return a path to read the file from; a remote file is first fetched into `cache`."""

    def adopt(self, key: str, path: Path) -> None:
        """Store a file of ours under `key` and take it from where it lies: no second copy where possible."""

    def check(self) -> None:
        """Do nothing, but raise OSError when the place cannot be reached."""


def open_storage(settings: Settings) -> Storage:
    """Return the storage that the settings name; its folder is made when it is missing."""
    address = settings.storage_address
    scheme, _, rest = address.partition("://")
    if scheme == "file":
        from app.storage.filesystem import FilesystemStorage

        return FilesystemStorage(Path(rest))
    if scheme == "s3":
        from app.storage.s3 import S3Storage

        return S3Storage(address)
    raise ValueError(f"HARRIER_STORAGE_URL must begin with file:// or s3://, not {scheme}://")


def folder_of(key: str) -> str:
    """Return the prefix of all that lies beside a key."""
    return f"{key.rpartition('/')[0]}/"


def checked_key(key: str) -> str:
    """Return `key`, which must be a plain relative path: a bug of ours must not reach other files."""
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts) or "\\" in key or "\0" in key:
        raise ValueError(f"{key!r} is not a storage key")
    return key
