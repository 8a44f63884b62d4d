"""Entries of a tar archive, read as a stream.

Extended (PAX) headers are honoured where the plain header could not hold the value; an extended header that
merely contradicts the plain one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from detection.data.archive.entry import Entry, decode_name
from detection.data.archive.limits import ArchiveFault, Budget
from detection.data.archive.tar_header import BLOCK, TarHeader, damaged, parse_header, parse_pax_records
from detection.data.wording import printable
from detection.errors import ArchiveError

Read = Callable[[int], bytes]
"""Reads up to so many bytes of the unpacked archive; empty at its end."""

CHUNK = 1024**2
MAX_LONG_NAME = 4096
MAX_PAX_BYTES = 1024**2
MAX_PADDING = 16 * 1024**2
"""Writers fill the last record with zeros; nobody needs more."""

_FILES = (b"0", b"\0")
_FOLDER, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"5", b"L", b"K", b"x", b"g"
_EXTENSIONS = (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL)
_OTHER_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}


def tar_entries(read: Read, budget: Budget) -> Iterator[Entry]:
    """Yield every entry; the content of one is skipped when it was not read."""
    long_name: str | None = None
    while (header := _next_header(read)) is not None:
        budget.add_entry(header.name)
        if header.kind in _EXTENSIONS:
            long_name = _extended_name(read, header) or long_name
            continue
        name = header.name if long_name is None else long_name
        long_name = None
        chunks = _content(read, header.size)
        yield Entry(name, _is_folder(header, name), chunks)
        for _ in chunks:
            pass
    _expect_only_padding(read)


def _next_header(read: Read) -> TarHeader | None:
    block = _read_exactly(read, BLOCK)
    return parse_header(block) if any(block) else None


def _is_folder(header: TarHeader, name: str) -> bool:
    if header.kind == _FOLDER:
        return True
    if header.kind not in _FILES:
        what = _OTHER_KINDS.get(header.kind, "of an unknown kind")
        raise ArchiveError(
            ArchiveFault.ENTRY, printable(name), f"it is {what}; only files and folders are taken"
        )
    if header.sets_user:
        raise ArchiveError(ArchiveFault.ENTRY, printable(name), "it carries the right to run as its owner")
    return name.endswith("/")


def _extended_name(read: Read, header: TarHeader) -> str | None:
    """Read an extension of the next header; return the name that it holds, if any."""
    limit = MAX_LONG_NAME if header.kind in (_LONG_NAME, _LONG_LINK) else MAX_PAX_BYTES
    if header.size > limit:
        raise damaged("", f"an extended header of {header.size:,} bytes")
    payload = b"".join(_content(read, header.size))
    if header.kind == _LONG_NAME:
        return decode_name(payload.split(b"\0", 1)[0])
    if header.kind == _LONG_LINK:
        return None
    return _pax_name(parse_pax_records(payload), everywhere=header.kind == _PAX_GLOBAL)


def _pax_name(records: dict[str, str], *, everywhere: bool) -> str | None:
    name = records.get("path")
    if "size" in records or any(key.startswith("GNU.sparse.") for key in records):
        raise ArchiveError(
            ArchiveFault.ENTRY, printable(name or ""), "an extended header changes the file's size"
        )
    if name is None:
        return None
    if everywhere or (name.isascii() and len(name) <= 100):
        problem = "an extended header replaces a name that needs no replacement"
        raise ArchiveError(ArchiveFault.PATH, printable(name), problem)
    return name


def _content(read: Read, size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = read(min(left, CHUNK))
        if not chunk:
            raise damaged("", "the archive is cut off")
        left -= len(chunk)
        yield chunk
    _read_exactly(read, -size % BLOCK)


def _read_exactly(read: Read, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = read(size - len(data))
        if not chunk:
            raise damaged("", "the archive is cut off")
        data += chunk
    return data


def _expect_only_padding(read: Read) -> None:
    """Read to the end, so that a compressor's checksum over the whole is verified too."""
    left = MAX_PADDING
    while chunk := read(CHUNK):
        left -= len(chunk)
        if left < 0 or any(chunk):
            raise damaged("", "data follows the end of the archive")
