"""The table of contents of a zip archive, read from its end."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from detection.data.archive.limits import ArchiveFault, Budget
from detection.data.archive.names import MAX_PATH_BYTES
from detection.errors import ArchiveError

_END = struct.Struct("<4s4H2LH")
_END_MARK = b"PK\x05\x06"
_END_64 = struct.Struct("<4sQ2H2L4Q")
_END_64_MARK = b"PK\x06\x06"
_LOCATOR_64 = struct.Struct("<4sLQL")
_LOCATOR_64_MARK = b"PK\x06\x07"
_RECORD = struct.Struct("<4s4B4HL2L5H2L")
_RECORD_MARK = b"PK\x01\x02"
_MAX_COMMENT = 0xFFFF
_IN_EXTRA_32 = 0xFFFFFFFF
_EXTRA_64 = 0x0001


@dataclass(frozen=True, slots=True)
class ZipRecord:
    """What the table of contents says about one entry."""

    raw_name: bytes
    flags: int
    method: int
    checksum: int
    packed_size: int
    size: int
    mode: int
    """Unix file mode, 0 when the archive was written elsewhere."""
    offset: int
    """Of the entry's own header."""


@dataclass(frozen=True, slots=True)
class ZipDirectory:
    """The whole table of contents."""

    offset: int
    """Where the table begins: no entry may reach beyond."""
    records: list[ZipRecord]


def read_directory(file: BinaryIO, budget: Budget) -> ZipDirectory:
    """Read the table of contents.

    Raises:
        ArchiveError: `archive_damaged`, `archive_too_many`.
    """
    num_records, size, offset, end = _find_end(file)
    if offset + size > end:
        raise damaged("", "its table of contents is not where it should be")
    file.seek(offset)
    records = []
    for record in _records(file, size):
        budget.add_entry("")
        records.append(record)
    if len(records) != num_records:
        raise damaged("", f"its table of contents has {len(records)} entries instead of {num_records}")
    return ZipDirectory(offset, records)


def damaged(name: str, problem: str) -> ArchiveError:
    """Return the error for an archive that contradicts itself at the entry `name`."""
    return ArchiveError(ArchiveFault.DAMAGED, name, problem)


def _find_end(file: BinaryIO) -> tuple[int, int, int, int]:
    """Return number of records, size and offset of the table, and where the record about it begins."""
    file_size = file.seek(0, os.SEEK_END)
    tail_size = min(file_size, _END.size + _MAX_COMMENT)
    tail_offset = file.seek(file_size - tail_size)
    tail = file.read(tail_size)
    position = tail.rfind(_END_MARK)
    if position < 0 or len(tail) < position + _END.size:
        raise damaged("", "the zip archive has no end: it is cut off")
    _, disk, first_disk, here, total, size, offset, comment = _END.unpack_from(tail, position)
    if position + _END.size + comment != len(tail):
        raise damaged("", "data follows the end of the zip archive")
    if (disk, first_disk) != (0, 0) or here != total:
        raise damaged("", "it is one part of several")
    end = tail_offset + position
    return _find_end_64(file, end) or (total, size, offset, end)


def _find_end_64(file: BinaryIO, end: int) -> tuple[int, int, int, int] | None:
    """Return the same from the record of large archives, if there is one."""
    locator_offset = end - _LOCATOR_64.size
    if locator_offset < 0:
        return None
    file.seek(locator_offset)
    mark, _, offset_64, _ = _LOCATOR_64.unpack(file.read(_LOCATOR_64.size))
    if mark != _LOCATOR_64_MARK:
        return None
    if offset_64 + _END_64.size > locator_offset:
        raise damaged("", "its large-archive record is not where it should be")
    file.seek(offset_64)
    mark, _, _, _, _, _, here, total, size, offset = _END_64.unpack(file.read(_END_64.size))
    if mark != _END_64_MARK or here != total:
        raise damaged("", "its large-archive record cannot be read")
    return total, size, offset, offset_64


def _records(file: BinaryIO, size: int) -> Iterator[ZipRecord]:
    left = size
    while left > 0:
        fixed = file.read(_RECORD.size)
        if len(fixed) < _RECORD.size or not fixed.startswith(_RECORD_MARK):
            raise damaged("", "its table of contents cannot be read")
        fields = _RECORD.unpack(fixed)
        name_size, extra_size, comment_size = fields[12:15]
        if name_size > MAX_PATH_BYTES:
            raise ArchiveError(ArchiveFault.PATH, "", f"a name of {name_size} bytes")
        variable = file.read(name_size + extra_size + comment_size)
        left -= _RECORD.size + name_size + extra_size + comment_size
        if len(variable) < name_size + extra_size + comment_size or left < 0:
            raise damaged("", "its table of contents cannot be read")
        yield _record(fields, variable[:name_size], variable[name_size : name_size + extra_size])


def _record(fields: tuple[int, ...], raw_name: bytes, extra: bytes) -> ZipRecord:
    size, packed_size, offset = _large_values((fields[11], fields[10], fields[18]), extra)
    return ZipRecord(
        raw_name=raw_name,
        flags=fields[5],
        method=fields[6],
        checksum=fields[9],
        packed_size=packed_size,
        size=size,
        mode=fields[17] >> 16,
        offset=offset,
    )


def _large_values(values: tuple[int, int, int], extra: bytes) -> tuple[int, int, int]:
    """Replace the values that did not fit into 32 bits by those of the extra field, in its fixed order."""
    if _IN_EXTRA_32 not in values:
        return values
    large = _extra_field(extra, _EXTRA_64)
    wanted = values.count(_IN_EXTRA_32)
    if len(large) < 8 * wanted:
        raise damaged("", "the size of a large entry is missing")
    numbers = iter(struct.unpack_from(f"<{wanted}Q", large))
    size, packed_size, offset = (next(numbers) if value == _IN_EXTRA_32 else value for value in values)
    return size, packed_size, offset


def _extra_field(extra: bytes, wanted: int) -> bytes:
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, position)
        if kind == wanted:
            return extra[position + 4 : position + 4 + size]
        position += 4 + size
    return b""
