"""JSON as the standard has it, and no more of it than anybody means: no key twice, no tower of brackets."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import BeforeValidator

from app.errors import PayloadTooLargeError

MOST_VALUES = 10_000
"""In one document. Each takes hundreds of bytes in memory, and as much again for what is wrong with it."""
MOST_FIELD_VALUES = 20_000
"""In a field of a form, which is short by itself and may list ten thousand classes."""
MOST_LEVELS = 32
TOO_DEEP = "it is nested too deeply"
MOST_DIGITS = 308
"""Of a whole number, as many as a number with a point can have before it."""


def strict_json(content: bytes, *, most_values: int = MOST_VALUES) -> Any:
    """Parse a document. How much there is in it is known before anything of it is made.

    Raises:
        ValueError: it is no JSON, or JSON that different readers read differently.
        PayloadTooLargeError: it has too many values.
    """
    if _most_values_in(content) > most_values:
        raise PayloadTooLargeError(f"at most {most_values:,} values may stand in JSON".replace(",", " "))
    text = content.decode("utf-8")
    try:
        document = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite, parse_int=_whole
        )
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    _check_parts(document, has_escapes="\\u" in text)
    return document


def checked_json_text(text: Any) -> Any:
    """Return the JSON in a field of a form as it is; pydantic reads it, if it is one that may be read.

    Raises:
        ValueError: it is not.
        PayloadTooLargeError: it has too many values.
    """
    if isinstance(text, str):
        try:
            strict_json(text.encode(), most_values=MOST_FIELD_VALUES)
        except ValueError as error:
            raise ValueError(f"Invalid JSON: {error}") from None
    return text


JsonField = BeforeValidator(checked_json_text)
"""Before `Json[…]`: as strict as with a body."""


def _most_values_in(content: bytes) -> int:
    """Return a number that the values in a document cannot exceed: what stands in texts is counted, too."""
    return 1 + sum(map(content.count, (b",", b"[", b"{")))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError("a number is too large")
    return int(text)


def _check_parts(document: Any, *, has_escapes: bool) -> None:
    """Look at every part; only escapes can spell NUL and halves of characters, which no database takes."""
    waiting = [(document, 0)]
    while waiting:
        part, level = waiting.pop()
        if level > MOST_LEVELS:
            raise ValueError(TOO_DEEP)
        if isinstance(part, dict):
            waiting += [(each, level + 1) for pair in part.items() for each in pair]
        elif isinstance(part, list):
            waiting += [(each, level + 1) for each in part]
        elif has_escapes and isinstance(part, str):
            _check_characters(part)


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise ValueError("a text holds NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half a character (a lone surrogate)") from None
