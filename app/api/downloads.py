"""A stored file as a download: ETag, one byte range, never a whole file in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastapi import Response
from fastapi.responses import StreamingResponse

from app.api.conditional import is_unchanged, not_modified
from app.errors import RangeNotSatisfiableError
from app.storage import Storage

PIECE_BYTES = 256 * 1024
ONE_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
"""Several ranges in one request are ignored, as the standard allows: they only ever served attacks."""


@dataclass(frozen=True, slots=True)
class Download:
    """What to send, and what the client said about it."""

    key: str
    size_bytes: int
    sha256: str
    file_name: str
    """Made by us, so that it needs no escaping."""
    media_type: str = "application/octet-stream"


def send(storage: Storage, download: Download, headers: Mapping[str, str]) -> Response:
    """Answer a GET for a file.

    Raises:
        RangeNotSatisfiableError: the range begins beyond the end.
        FileNotFoundError: the storage has lost it.
    """
    etag = f'"{download.sha256}"'
    if is_unchanged(etag, headers.get("if-none-match")):
        return not_modified(etag)
    span = _span(headers.get("range"), download.size_bytes)
    if headers.get("if-range", etag) != etag:
        span = None
    first, last = span or (0, download.size_bytes - 1)
    answer = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Length": str(last - first + 1),
        "Content-Disposition": f'attachment; filename="{download.file_name}"',
    }
    if span is not None:
        answer["Content-Range"] = f"bytes {first}-{last}/{download.size_bytes}"
    storage.size(download.key)  # before the answer has begun: afterwards nobody can be told
    return StreamingResponse(
        _pieces(storage, download.key, first, last - first + 1),
        status_code=206 if span is not None else 200,
        media_type=download.media_type,
        headers=answer,
    )


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    match = ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None or match.groups() == ("", ""):
        return None
    first_text, last_text = match.groups()
    if first_text == "":
        first, last = max(size - int(last_text), 0), size - 1
    else:
        first, last = int(first_text), min(int(last_text or size), size - 1)
    if last_text and first_text and int(last_text) < int(first_text):
        return None
    if first >= size:
        raise RangeNotSatisfiableError(
            f"the file has {size} bytes", headers={"Content-Range": f"bytes */{size}"}
        )
    return first, last


def _pieces(storage: Storage, key: str, start: int, length: int) -> Iterator[bytes]:
    with storage.open(key) as file:
        file.seek(start)
        while length > 0 and (piece := file.read(min(PIECE_BYTES, length))):
            length -= len(piece)
            yield piece
