"""A folder that only ever gets new regular files, all of them inside it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from detection.data.archive.limits import ArchiveFault
from detection.errors import ArchiveError

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NewFolder:
    """Creates files and folders below one root, step by step from its descriptor, never through a link."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = os.open(root, _OPEN_FOLDER)
        self._current: tuple[tuple[str, ...], int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        os.close(self._root)

    def make(self, parts: tuple[str, ...]) -> None:
        """Create a folder and those above it; that it exists already is no error."""
        self._enter(parts)

    def write(self, parts: tuple[str, ...], chunks: Iterable[bytes]) -> None:
        """Create a file that does not exist yet and write its content."""
        folder = self._enter(parts[:-1])
        try:
            descriptor = os.open(parts[-1], _NEW_FILE, 0o644, dir_fd=folder)
        except FileExistsError:
            raise _twice(parts) from None
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 a descriptor, not a path
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]

    def _enter(self, parts: tuple[str, ...]) -> int:
        """Return a descriptor of the folder; the last one stays open, because neighbours come together."""
        if self._current is not None and self._current[0] == parts:
            return self._current[1]
        self._leave()
        descriptor = os.dup(self._root)
        for depth, part in enumerate(parts, start=1):
            try:
                child = _enter_part(descriptor, part)
            except NotADirectoryError:
                raise _twice(parts[:depth]) from None
            finally:
                os.close(descriptor)
            descriptor = child
        self._current = parts, descriptor
        return descriptor

    def _leave(self) -> None:
        if self._current is not None:
            os.close(self._current[1])
            self._current = None


def _enter_part(folder: int, part: str) -> int:
    try:
        return os.open(part, _OPEN_FOLDER, dir_fd=folder)
    except FileNotFoundError:
        os.mkdir(part, 0o755, dir_fd=folder)
        return os.open(part, _OPEN_FOLDER, dir_fd=folder)


def _twice(parts: tuple[str, ...]) -> ArchiveError:
    return ArchiveError(
        ArchiveFault.DUPLICATE,
        "/".join(parts),
        "the archive holds this name twice, or for a file and for a folder",
    )
