"""What every name keeps to: how long it may be, and which characters show nothing. Plain Python."""

from __future__ import annotations

import re

NAME_LENGTH = 200
"""Characters."""
INVISIBLE = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
)
"""As a class of characters: controls, line and paragraph ends, direction marks and overrides, zero widths.

They turn the direction of writing, or make two names that look alike differ. Those that every dialect of
regular expressions can write; the zero-width joiners are not among them.
"""
HIDDEN = re.compile(
    f"[{INVISIBLE}\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""All of them."""
JOINERS = "\u200c\u200d"
"""Zero-width joiner and non-joiner, which shape Persian, Hindi and emoji; of use between characters only."""
