"""One uploaded file on its way to the disk: counted, hashed, sniffed, never more than fits."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from fastapi import Request

from app.api.faults import field_fault
from app.api.limits import FORM_BYTES
from app.api.multipart import FileSink, PartHead, read_form
from app.database.tables import new_id
from app.errors import NoSpaceError, PayloadTooLargeError

WRITE_BYTES = 1 << 20
"""So much is gathered before a thread is asked to write it."""
SPACE_EVERY_BYTES = 64 << 20
HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class UploadedFile:
    path: Path
    file_name: str
    """As the client called it: shown and logged, never a path."""
    size_bytes: int
    sha256: str

    @property
    def shown_name(self) -> str:
        """The file's name without folders and kind, fit to be a name of ours."""
        stem = self.file_name.replace("\\", "/").rpartition("/")[2].partition(".")[0]
        return "".join(char for char in stem if char.isprintable()).strip()[:200]


@dataclass(frozen=True, slots=True)
class UploadedForm:
    fields: Mapping[str, str | list[str]]
    file: UploadedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRules:
    """What the one file of a form may be."""

    field: str
    max_bytes: int
    min_free_bytes: int
    check_room: Callable[[int], None]
    """Raises when so many bytes do not fit into the quota; asked in a thread, for it asks the database."""
    check_head: Callable[[bytes], None]
    """Raises when the first bytes are not those of a kind we take."""


@asynccontextmanager
async def received_form(request: Request, folder: Path, rules: UploadRules) -> AsyncIterator[UploadedForm]:
    """Receive a form with one file into `folder`; whatever is still there afterwards is removed."""
    await make_way(request, folder, rules)
    sink = DiskSink(folder / new_id(), rules)

    async def open_sink(head: PartHead) -> FileSink:
        if head.name != rules.field:
            raise field_fault(head.name, f"no file is wanted here; the file goes into `{rules.field}`")
        if sink.is_open:
            raise field_fault(head.name, "one file at a time")
        sink.open(head.file_name or "")
        return sink

    try:
        fields = await read_form(request.stream(), request.headers.get("content-type", ""), open_sink)
        if not sink.is_open:
            raise field_fault(rules.field, "the file is missing")
        yield UploadedForm(fields, sink.result())
    finally:
        sink.discard()


@asynccontextmanager
async def received_body(request: Request, folder: Path, rules: UploadRules) -> AsyncIterator[UploadedFile]:
    """Receive a body that is one file, without a name, into `folder`; see `received_form`."""
    await make_way(request, folder, rules)
    sink = DiskSink(folder / new_id(), rules)
    sink.open("")
    try:
        async for piece in request.stream():
            await sink.write(piece)
        await sink.finish()
        yield sink.result()
    finally:
        sink.discard()


async def make_way(request: Request, folder: Path, rules: UploadRules) -> None:
    """Make the folder of an upload, and refuse what does not fit by the length that is announced.

    Raises:
        NoSpaceError: too little would stay free on the disk.
        QuotaExceededError: it does not fit into the quota.
    """
    folder.mkdir(parents=True, exist_ok=True)
    announced = int(request.headers.get("content-length", "0"))
    _check_space(folder, announced, rules.min_free_bytes)
    await to_thread.run_sync(rules.check_room, max(announced - FORM_BYTES, 1))


class DiskSink:
    """Writes in a thread, a megabyte at a time, so that the event loop never waits for the disk."""

    def __init__(self, path: Path, rules: UploadRules) -> None:
        self._path, self._rules = path, rules
        self._file: BinaryIO | None = None
        self._file_name = ""
        self._waiting = bytearray()
        self._digest = hashlib.sha256()
        self._size = 0
        self._checked_at = 0
        self._head_is_checked = False

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def open(self, file_name: str) -> None:
        self._file, self._file_name = self._path.open("xb"), file_name

    async def write(self, piece: bytes) -> None:
        self._waiting += piece
        self._size += len(piece)
        if self._size > self._rules.max_bytes:
            raise PayloadTooLargeError(f"the file may have at most {self._rules.max_bytes} bytes")
        if not self._head_is_checked and len(self._waiting) >= HEAD_BYTES:
            self._check_head()
        if len(self._waiting) >= WRITE_BYTES:
            await self._flush()

    async def finish(self) -> None:
        if not self._head_is_checked:
            self._check_head()
        await self._flush()
        assert self._file is not None
        self._file.close()

    def result(self) -> UploadedFile:
        return UploadedFile(self._path, self._file_name, self._size, self._digest.hexdigest())

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _check_head(self) -> None:
        self._rules.check_head(bytes(self._waiting[:HEAD_BYTES]))
        self._head_is_checked = True

    async def _flush(self) -> None:
        piece, self._waiting = bytes(self._waiting), bytearray()
        await to_thread.run_sync(self._store, piece)

    def _store(self, piece: bytes) -> None:
        assert self._file is not None
        if self._size - self._checked_at >= SPACE_EVERY_BYTES:
            _check_space(self._path.parent, 0, self._rules.min_free_bytes)
            self._rules.check_room(self._size)
            self._checked_at = self._size
        self._digest.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise NoSpaceError(f"the file could not be stored: {error.strerror}") from error


def _check_space(folder: Path, wanted_bytes: int, min_free_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free - wanted_bytes < min_free_bytes:
        raise NoSpaceError(
            f"{wanted_bytes} bytes are announced, {free} are free, {min_free_bytes} must stay free"
        )
