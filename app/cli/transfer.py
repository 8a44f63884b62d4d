"""Files on their way to the server and back, and how much of them has arrived."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx2

from app.cli.client import Api, CommandError
from app.cli.gauge import Advance, counted_bytes

READ_BYTES = 1 << 20


class CountedFile:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, advance: Advance) -> None:
        self._file, self._advance = file, advance

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._advance(len(piece))
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
    with counted_bytes(name, os.fstat(file.fileno()).st_size) as advance:
        return api.post(path, files={field: (name, CountedFile(file, advance))}, data=data)


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
    with api.stream(path, params=parameters) as response, partial.open("wb") as file:
        receive(response, target.name, file.write)
    partial.replace(target)


def receive(response: httpx2.Response, name: str, keep: Callable[[bytes], object]) -> None:
    """Pass on the body of an answer piece by piece, and show how much of it has come."""
    total = response.headers.get("content-length")
    with counted_bytes(name, int(total) if total else None) as advance:
        for piece in response.iter_bytes(READ_BYTES):
            keep(piece)
            advance(len(piece))
