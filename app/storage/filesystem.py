"""Storage in a local folder: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from app.database.tables import new_id
from app.storage import checked_key
from detection.durable import TEMPORARY, sync_folder

COPY_BYTES = 1 << 20


class FilesystemStorage:
    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True)

    def write(self, key: str, content: BinaryIO) -> None:
        target = self._make_room(key)
        temporary = target.with_name(f"{target.name}{TEMPORARY}{new_id()}")
        try:
            with temporary.open("xb") as file:
                shutil.copyfileobj(content, file, COPY_BYTES)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)

    def open(self, key: str) -> BinaryIO:
        return self._path(key).open("rb")

    def size(self, key: str) -> int:
        return self._path(key).stat().st_size

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def keys(self, prefix: str) -> Iterator[str]:
        folder = self.root / prefix.rpartition("/")[0]
        for path in sorted(_files_below(folder)):
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix) and TEMPORARY not in path.name and path.is_file():
                yield key

    def folders(self, prefix: str) -> list[str]:
        folder = self._path(prefix.removesuffix("/"))
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def delete(self, key: str) -> None:
        path = self._path(key)
        path.unlink(missing_ok=True)
        self._remove_empty(path.parent)

    def delete_all(self, prefix: str) -> None:
        if not prefix.endswith("/"):
            raise ValueError(f"{prefix!r} must end with a slash")
        folder = self._path(prefix[:-1])
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        self._remove_empty(folder.parent)

    def local_path(self, key: str, cache: Path) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise FileNotFoundError(key)
        return path

    def adopt(self, key: str, path: Path) -> None:
        if path.stat().st_dev != self.root.stat().st_dev:
            with path.open("rb") as content:
                self.write(key, content)
            path.unlink()
            return
        target = self._make_room(key)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(target)
        sync_folder(target.parent)

    def check(self) -> None:
        self.root.stat()

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _make_room(self, key: str) -> Path:
        """Make the folders of a key, and make their names last."""
        target = self._path(key)
        missing = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)
        return target

    def _remove_empty(self, folder: Path) -> None:
        """Folders are no keys: an empty one would only gather."""
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield what is there; what another process removes meanwhile is not, and no error."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)
