"""Files on their way to the server and back, with a progress bar that shows real bytes."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from app.cli.client import Api, CommandError
from app.cli.terminal import notes

READ_BYTES = 1 << 20


def transfer_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=notes,
        transient=True,
    )


class CountedFile:
    """A file that tells a progress bar how much of it was read."""

    def __init__(self, file: BinaryIO, progress: Progress, description: str) -> None:
        self._file, self._progress = file, progress
        size = os.fstat(file.fileno()).st_size
        self._task = progress.add_task(description, total=size)

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._progress.advance(self._task, len(piece))
        return piece

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(READ_BYTES):
            yield piece


def upload(api: Api, path: str, *, field: str, file: BinaryIO, name: str, data: dict[str, Any]) -> Any:
    """Post a form with one file and return the answer."""
    with transfer_bar() as progress:
        counted = CountedFile(file, progress, name)
        return api.post(path, files={field: (name, counted)}, data=data)


@contextmanager
def opened_archive(source: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Yield an archive and its name: the file itself, or a folder packed into a temporary zip."""
    if source.is_file():
        with source.open("rb") as file:
            yield file, source.name
        return
    if not source.is_dir():
        raise CommandError(f"there is neither a folder nor a file at {source.absolute()}")
    with tempfile.TemporaryFile() as packed:
        _pack(source, packed)
        packed.seek(0)
        yield packed, f"{source.absolute().name}.zip"


def _pack(folder: Path, target: BinaryIO) -> None:
    """Write all regular files below a folder, as they are: pictures are compressed already."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                archive.write(path, path.relative_to(folder).as_posix())


def download(api: Api, path: str, target: Path, **parameters: Any) -> None:
    """Write an answer to a file, whole or not at all."""
    partial = target.with_name(f"{target.name}.partial")
    with api.stream(path, params=parameters) as response, transfer_bar() as progress:
        total = response.headers.get("content-length")
        task = progress.add_task(target.name, total=int(total) if total else None)
        with partial.open("wb") as file:
            for piece in response.iter_bytes(READ_BYTES):
                file.write(piece)
                progress.advance(task, len(piece))
    partial.replace(target)
