"""Archives made byte by byte, honest and hostile ones."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes], mode: str = "w", layout: int = tarfile.GNU_FORMAT) -> bytes:
    members = []
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        members.append((member, content))
    return tar_with(members, mode, layout)


def tar_with(
    members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w", layout: int = tarfile.GNU_FORMAT
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=layout) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@dataclass
class RawZipEntry:
    """One entry of a zip with every field free to lie; None is the honest value."""

    name: bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0
    mode: int = 0
    size: int | None = None
    packed_size: int | None = None
    checksum: int | None = None
    local_name: bytes | None = None
    offset: int | None = None
    packed: bytes | None = None

    def packed_content(self) -> bytes:
        if self.packed is not None:
            return self.packed
        if self.method != 8:
            return self.content
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflater.compress(self.content) + deflater.flush()


def raw_zip(entries: list[RawZipEntry], *, num_records: int | None = None, trailer: bytes = b"") -> bytes:
    body, table = b"", b""
    for entry in entries:
        packed = entry.packed_content()
        name = entry.local_name if entry.local_name is not None else entry.name
        checksum = zlib.crc32(entry.content) if entry.checksum is None else entry.checksum
        size = len(entry.content) if entry.size is None else entry.size
        packed_size = len(packed) if entry.packed_size is None else entry.packed_size
        offset = len(body) if entry.offset is None else entry.offset
        sizes = (checksum, packed_size, size)
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, entry.flags, entry.method, 0, 0, *sizes, len(name), 0)
        body += name + packed
        table += struct.pack("<4s6H3L5H2L", b"PK\1\2", 0x314, 20, entry.flags, entry.method, 0, 0, *sizes,
                             len(entry.name), 0, 0, 0, 0, entry.mode << 16, offset) + entry.name  # fmt: skip
    count = len(entries) if num_records is None else num_records
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(table), len(body), 0)
    return body + table + end + trailer
