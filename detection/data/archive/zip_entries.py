"""Entries of a zip archive, in the order in which they lie in the file."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from detection.data.archive.entry import Entry, decode_name
from detection.data.archive.limits import ArchiveFault, Budget
from detection.data.archive.zip_directory import ZipRecord, damaged, read_directory
from detection.data.wording import printable
from detection.errors import ArchiveError

CHUNK = 1024**2

_LOCAL = struct.Struct("<4s5H3L2H")
_LOCAL_MARK = b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED_FLAGS = 0x0001 | 0x0040 | 0x2000


def zip_entries(file: BinaryIO, budget: Budget) -> Iterator[Entry]:
    """Yield every entry of the table of contents; no two may share a byte of the file."""
    directory = read_directory(file, budget)
    previous_end = 0
    for record in sorted(directory.records, key=lambda record: record.offset):
        name = decode_name(record.raw_name)
        _check(record, name)
        start = _content_start(file, record, name)
        if record.offset < previous_end or start + record.packed_size > directory.offset:
            raise damaged(printable(name), "it overlaps another entry")
        previous_end = start + record.packed_size
        yield Entry(name, _is_folder(record, name), _content(file, record, name, start, budget))


def _check(record: ZipRecord, name: str) -> None:
    if record.flags & _ENCRYPTED_FLAGS:
        raise ArchiveError(ArchiveFault.ENCRYPTED, printable(name), "it is encrypted")
    if record.method not in (_STORED, _DEFLATED):
        problem = f"it is compressed by method {record.method}; only stored and deflated entries are read"
        raise ArchiveError(ArchiveFault.METHOD, printable(name), problem)


def _is_folder(record: ZipRecord, name: str) -> bool:
    file_type = stat.S_IFMT(record.mode)
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a symbolic link" if file_type == stat.S_IFLNK else "a device or a pipe"
        raise ArchiveError(
            ArchiveFault.ENTRY, printable(name), f"it is {what}; only files and folders are taken"
        )
    is_folder = name.endswith("/")
    if is_folder and record.size:
        raise damaged(printable(name), "a folder with content")
    if not is_folder and record.mode & (stat.S_ISUID | stat.S_ISGID):
        raise ArchiveError(ArchiveFault.ENTRY, printable(name), "it carries the right to run as its owner")
    return is_folder


def _content_start(file: BinaryIO, record: ZipRecord, name: str) -> int:
    """Return where the content begins, after the entry's own header, which must agree with the table."""
    file.seek(record.offset)
    fixed = file.read(_LOCAL.size)
    if len(fixed) < _LOCAL.size or not fixed.startswith(_LOCAL_MARK):
        raise damaged(printable(name), "it is not where the table of contents says")
    _, _, flags, method, _, _, _, _, _, name_size, extra_size = _LOCAL.unpack(fixed)
    if file.read(name_size) != record.raw_name or method != record.method or flags & _ENCRYPTED_FLAGS:
        raise damaged(printable(name), "its own header contradicts the table of contents")
    return record.offset + _LOCAL.size + name_size + extra_size


def _content(file: BinaryIO, record: ZipRecord, name: str, start: int, budget: Budget) -> Iterator[bytes]:
    """Yield the content; size and checksum must come out as stated."""
    size = checksum = 0
    for chunk in _unpacked(file, record, name, start, budget):
        size += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        if size > record.size:
            break
        yield chunk
    if size != record.size:
        raise damaged(printable(name), "its size is not what the archive says")
    if checksum != record.checksum:
        raise damaged(printable(name), "its checksum is wrong")


def _unpacked(file: BinaryIO, record: ZipRecord, name: str, start: int, budget: Budget) -> Iterator[bytes]:
    if record.method == _STORED:
        for chunk in _packed(file, record, name, start):
            budget.add_unpacked(read_bytes=len(chunk), unpacked_bytes=len(chunk))
            yield chunk
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for packed in _packed(file, record, name, start):
        budget.add_unpacked(read_bytes=len(packed), unpacked_bytes=0)
        rest = packed
        while rest and not inflater.eof:
            try:
                chunk = inflater.decompress(rest, CHUNK)
            except zlib.error:
                raise damaged(printable(name), "it cannot be decompressed") from None
            budget.add_unpacked(read_bytes=0, unpacked_bytes=len(chunk))
            rest = inflater.unconsumed_tail
            yield chunk
    if not inflater.eof:
        raise damaged(printable(name), "its content is cut off")


def _packed(file: BinaryIO, record: ZipRecord, name: str, start: int) -> Iterator[bytes]:
    left = record.packed_size
    file.seek(start)
    while left:
        chunk = file.read(min(left, CHUNK))
        if not chunk:
            raise damaged(printable(name), "its content is cut off")
        left -= len(chunk)
        yield chunk
