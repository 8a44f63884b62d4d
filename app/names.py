"""What a name may be: something a person can see, in any script, and nothing that hides or reorders text."""

from __future__ import annotations

import re
import unicodedata

NAME_LENGTH = 200
INVISIBLE = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
)
"""As a class of characters: controls, line and paragraph ends, direction marks and overrides, zero widths.

The two zero-width joiners (U+200C, U+200D) are not among them: several scripts cannot be written without.
"""
_REFUSED = re.compile(
    f"[{INVISIBLE}\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_JOINERS = "\u200c\u200d"


def checked_name(text: str) -> str:
    """Return `text` when it can be a name.

    Raises:
        ValueError: it is too long, nothing of it can be seen, or a character only hides or reorders others.
    """
    if len(text) > NAME_LENGTH:
        raise ValueError(f"a name has at most {NAME_LENGTH} characters")
    if not text.strip().strip(_JOINERS).strip():
        raise ValueError("a name needs at least one character that can be seen")
    refused = _REFUSED.search(text)
    if refused is not None:
        raise ValueError(
            f"a name may not hold {_described(refused[0])}, as character {refused.start() + 1}: control"
            " characters, invisible ones and those that turn the direction of writing are refused"
        )
    return text


def _described(char: str) -> str:
    """Return a character as its code and its name, because to show it would be of no use."""
    name = unicodedata.name(char, "")
    return f"U+{ord(char):04X} ({name})" if name else f"U+{ord(char):04X}"
