"""JSON as the standard has it: no NaN, no key twice, no half characters, no tower of brackets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request

from app.api.error_handlers import RefusedError
from app.errors import BadRequestError


class StrictRequest(Request):
    """Made anew around the same scope, so that every route's body is read this way."""

    async def json(self) -> Any:
        try:
            return strict_json(await self.body())
        except ValueError as error:
            raise RefusedError(BadRequestError(f"the body is not valid JSON: {error}")) from None


def strict_json(content: bytes) -> Any:
    """Parse a document.

    Raises:
        ValueError: it is no JSON, or JSON that different readers read differently.
    """
    text = content.decode("utf-8")
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\u" in text:  # only escapes can spell NUL and halves of characters, which no database takes
        for part in _texts(document):
            _check_characters(part)
    return document


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


def _texts(document: Any) -> Iterator[str]:
    waiting = [document]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            waiting.extend((*part.keys(), *part.values()))
        elif isinstance(part, list):
            waiting.extend(part)


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise ValueError("a text holds NUL")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("a text holds half a character (a lone surrogate)")
