"""What was probably meant: the known name that is nearest to an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

JsonSchema = dict[str, Any]
DID_YOU_MEAN = "; did you mean `"
LONGEST = 100
"""Characters of a name that anybody has meant."""


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """Return the nearest choice as the end of a sentence; nothing when none is near."""
    if len(given) > LONGEST:
        return ""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(given.lower(), by_lower, n=1)
    return f"{DID_YOU_MEAN}{by_lower[near[0]]}`?" if near else ""


def field_like(shape: object, path: Sequence[str | int]) -> str:
    """Suggest a field for the unknown one at the end of `path`: one beside it, or a namesake a level below.

    Args:
        path: pydantic's path into `shape`, a type that pydantic reads.
    """
    root, given = _schema(shape), str(path[-1])
    beside = _fields(_at(root, path[:-1]))
    below = [
        f"{outer}.{given}" for outer in sorted(beside) if given in _fields(_at(root, (*path[:-1], outer)))
    ]
    return did_you_mean(given, sorted(beside)) or (f"{DID_YOU_MEAN}{below[0]}`?" if below else "")


@lru_cache(maxsize=64)
def _schema(shape: Any) -> JsonSchema:
    return TypeAdapter(shape).json_schema()


def _at(root: JsonSchema, path: Sequence[str | int]) -> list[JsonSchema]:
    """Return what can lie at `path`; a part of it that leads nowhere names the member of a union."""
    here = [*_meanings(root, root)]
    for part in path:
        steps = [step for schema in here for step in _steps(schema, part)]
        here = [meaning for step in steps for meaning in _meanings(root, step)] or here
    return here


def _fields(schemas: Iterable[JsonSchema]) -> set[str]:
    return {name for schema in schemas for name in schema.get("properties", ())}


def _steps(schema: JsonSchema, part: str | int) -> Iterator[JsonSchema]:
    """Yield what lies under a key or an index."""
    inside = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
    if isinstance(inside, dict):
        yield inside


def _meanings(root: JsonSchema, schema: JsonSchema) -> Iterator[JsonSchema]:
    """Yield what a schema stands for: itself, what it refers to, each member of a union, JSON in a text."""
    yield schema
    if "$ref" in schema:
        yield from _meanings(root, root["$defs"][schema["$ref"].rpartition("/")[2]])
    for member in (*schema.get("anyOf", ()), schema.get("contentSchema")):
        if member is not None:
            yield from _meanings(root, member)
