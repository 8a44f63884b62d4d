"""What a name may be: something a person can see, in any script, and nothing that hides or reorders text."""

from __future__ import annotations

import unicodedata

from detection.names import HIDDEN, JOINERS, NAME_LENGTH


def checked_name(text: str) -> str:
    """Return `text` when it can be a name.

    Raises:
        ValueError: it is too long, nothing of it can be seen, or a character only hides or reorders others.
    """
    if len(text) > NAME_LENGTH:
        raise ValueError(f"a name has at most {NAME_LENGTH} characters")
    if not text.strip().strip(JOINERS).strip():
        raise ValueError("a name needs at least one character that can be seen")
    refused = HIDDEN.search(text)
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
