"""Which kind of video a file is, told by its first bytes; plain Python, so that a server can refuse early."""

from __future__ import annotations

from enum import StrEnum

HEAD_BYTES = 512
"""So much of a file is looked at."""


class VideoKind(StrEnum):
    MP4 = "mp4"
    """MP4, QuickTime and their relatives."""
    MATROSKA = "matroska"
    """Matroska and WebM."""
    AVI = "avi"


DEMUXERS = {VideoKind.MP4: "mov", VideoKind.MATROSKA: "matroska", VideoKind.AVI: "avi"}
"""What FFmpeg calls the reader of each kind."""
_PICTURE_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis"}
"""Brands of single pictures in the same container."""
_OLD_QUICKTIME = {b"moov", b"mdat", b"wide", b"free", b"skip"}
"""What a QuickTime file may begin with that does not name its brand."""
_EBML = b"\x1a\x45\xdf\xa3"


def sniff_video(head: bytes) -> VideoKind | None:
    """Return the kind that the first bytes of a file announce, or None.

    Playlists and other files that lead a reader to further files are none of them.

    Args:
        head: the first `HEAD_BYTES`, or the whole of a shorter file.
    """
    head = head[:HEAD_BYTES]
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _PICTURE_BRANDS else VideoKind.MP4
    if head[4:8] in _OLD_QUICKTIME:
        return VideoKind.MP4
    if head.startswith(_EBML) and (b"matroska" in head or b"webm" in head):
        return VideoKind.MATROSKA
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return VideoKind.AVI
    return None
