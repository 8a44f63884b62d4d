"""Tell an archive's kind by its first bytes."""

from __future__ import annotations

from detection.data.archive.tar_header import BLOCK, has_valid_checksum

SNIFF_BYTES = BLOCK
"""So many bytes are enough to decide."""


def sniff_archive(head: bytes) -> str | None:
    """Return `zip`, `tar`, `tar.gz` or `tar.zst` from an archive's first 512 bytes, or None.

    That a gzip or zstd file really holds a tar shows only when it is unpacked.
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b\x08"):
        return "tar.gz"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "tar.zst"
    if len(head) >= BLOCK and has_valid_checksum(head[:BLOCK]):
        return "tar"
    return None
