"""Numbers as label files write them: decimal, with a point, in plain digits. Plain Python."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_NO_NUMBER = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)
LONGEST = 400


def parse_number(text: str) -> float:
    """Return the number that a text clearly is; NaN and infinity, as programs print them, count as numbers.

    Raises:
        ValueError: it is none, or could mean several: `12,5`, `1_000`.
    """
    if len(text) > LONGEST or not (_NUMBER.fullmatch(text) or _NO_NUMBER.fullmatch(text)):
        raise ValueError(f"{text.strip()[:40]!r} is no number")
    return float(text)
