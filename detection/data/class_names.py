"""Class names: any text that can be shown and written to every format."""

from __future__ import annotations

import re

_NOT_WRITABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold, and control characters."""


def clean_class_name(raw: object) -> str:
    """Return a name in one line without surrounding space; empty when nothing is left.

    Markup, right-to-left text and any length are data like any other.
    """
    return " ".join(writable(str(raw)).split())


def writable(text: str) -> str:
    """Return a text with spaces for what some format cannot hold."""
    return _NOT_WRITABLE.sub(" ", text)
