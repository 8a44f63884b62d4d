"""The 512-byte headers of tar archives, and the records that extend them."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from detection.data.archive.entry import decode_name
from detection.data.archive.limits import ArchiveFault
from detection.errors import ArchiveError

BLOCK = 512


@dataclass(frozen=True, slots=True)
class TarHeader:
    """One header, after its checksum was found right."""

    name: str
    mode: int
    size: int
    kind: bytes
    """One byte: `0` a file, `5` a folder, `L` a long name, `x` and `g` extended records, and others."""

    @property
    def sets_user(self) -> bool:
        return bool(self.mode & (stat.S_ISUID | stat.S_ISGID))


def has_valid_checksum(block: bytes) -> bool:
    """Return whether a block is a tar header: it sums to what it says, counting its own sum as spaces."""
    try:
        stated = _number(block[148:156])
    except ArchiveError:
        return False
    return stated == sum(block[:148]) + sum(block[156:]) + 8 * ord(" ") and block[:1] != b"\0"


def parse_header(block: bytes) -> TarHeader:
    """Read one header block.

    Raises:
        ArchiveError: `archive_damaged`.
    """
    if not has_valid_checksum(block):
        raise damaged("", "a header has a wrong checksum: this is no tar archive, or it is damaged")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":  # GNU's own layout has other fields where the prefix would be
        prefix = block[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return TarHeader(decode_name(name), _number(block[100:108]), _number(block[124:136]), block[156:157])


def parse_pax_records(payload: bytes) -> dict[str, str]:
    """Read extended records: `length key=value`, a newline after each.

    Raises:
        ArchiveError: `archive_damaged`.
    """
    records: dict[str, str] = {}
    position = 0
    while position < len(payload):
        digits, space, _ = payload[position : position + 12].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = payload[position : position + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or len(record) != length or not record.endswith(b"\n"):
            raise damaged("", "an extended header cannot be read")
        records[decode_name(key)] = decode_name(value)
        position += length
    return records


def damaged(name: str, problem: str) -> ArchiveError:
    """Return the error for an archive that contradicts itself at the entry `name`."""
    return ArchiveError(ArchiveFault.DAMAGED, name, problem)


def _number(field: bytes) -> int:
    """Read an octal field, or a binary one marked by its first bit (GNU, for large numbers)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ") or b"0"
    if digits.strip(b"01234567"):
        raise damaged("", "a header field is no number")
    return int(digits, 8)
