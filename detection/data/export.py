"""A dataset as a zip that is written while it is sent: never whole in memory, never on disk. Plain Python."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from detection.data.formats import FORMATS
from detection.data.formats.dataset_format import ExportedFile, ReadPicture
from detection.data.records import DatasetRecord

TIME = (1980, 1, 1, 0, 0, 0)
"""Of every entry, so that equal datasets give equal archives."""


def export_zip(dataset: DatasetRecord, format_name: str, read_picture: ReadPicture) -> Iterator[bytes]:
    """Yield the bytes of a zip with the dataset in another format.

    Args:
        format_name: a name of `FORMATS`.
        read_picture: returns the bytes of a picture's file; called when its turn comes.

    Raises:
        UnknownNameError: there is no such format; raised at once, not while sending.
    """
    files = FORMATS[format_name].write(dataset, read_picture)
    return zip_files(files)


def zip_files(files: Iterable[ExportedFile]) -> Iterator[bytes]:
    """Yield the bytes of a zip with these files; labels are deflated, pictures are stored as they are."""
    buffer = _Unseekable()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.name, TIME)
            entry.external_attr = 0o100644 << 16
            is_text = file.name.endswith((".json", ".xml", ".txt", ".yaml"))
            entry.compress_type = zipfile.ZIP_DEFLATED if is_text else zipfile.ZIP_STORED
            archive.writestr(entry, file.content)
            yield buffer.take()
    yield buffer.take()


def write_folder(files: Iterable[ExportedFile], target: Path) -> None:
    """Write the files of an export below a folder."""
    for file in files:
        path = target / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)


class _Unseekable(io.RawIOBase):
    """Collects what a writer writes until somebody takes it; `zipfile` then writes front to back only."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # zipfile hands over bytes
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken
