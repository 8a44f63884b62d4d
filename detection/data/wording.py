"""Words for messages: numbers with their noun, and foreign text made fit to be shown. Plain Python."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return `1 file`, `2 files`, `12,000 entries`; `plural` where an s is not enough."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def printable(text: str, limit: int = 200) -> str:
    """Return a text that can stand in a message, in a log line and in every database.

    What cannot be seen (control characters, marks that turn the direction of writing, lone surrogates) is
    written as `\\u202e`; what is longer than `limit` is cut.
    """
    shown = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text[:limit])
    return shown if len(text) <= limit else shown + "…"


def quoted(text: str, limit: int = 60) -> str:
    """Return a name out of a file, however long or odd, in quotes for a message."""
    return f"'{printable(text, limit)}'"
