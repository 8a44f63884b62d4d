"""One file or folder of an archive, whatever the archive's kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """What the archive says about it, and its content."""

    name: str
    """As the archive writes it: not trusted yet."""
    is_folder: bool
    chunks: Iterator[bytes]
    """The content, readable once and before the next entry is asked for."""


def decode_name(raw: bytes) -> str:
    """Return a name as text: UTF-8 whatever the archive claims, else the code page of the first zips."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")
