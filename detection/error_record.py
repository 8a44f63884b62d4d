"""The library's errors as plain data: one process can raise what happened in another. Plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from detection import errors
from detection.errors import DetectionError, Fault


class ErrorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An error of the library: its class by name, its message, and the facts it carries."""

    kind: str
    message: str
    facts: dict[str, Any]


def record_of(error: DetectionError) -> ErrorRecord:
    """Return an error as plain data.

    A class that the library does not name becomes the nearest one above it that it does.
    """
    kind = next(each for each in type(error).__mro__ if each.__name__ in _kinds())
    return ErrorRecord(kind=kind.__name__, message=str(error), facts=msgspec.to_builtins(vars(error)))


def error_of(record: ErrorRecord) -> DetectionError:
    """Return the error that `record_of` has described: the same class, message and facts.

    Raises:
        ValueError: the library has no error of that name.
    """
    kind = _kinds().get(record.kind)
    if kind is None:
        raise ValueError(f"{record.kind} is no error of the library")
    # Its own `__init__` would make up the message again, from facts that are partly in it.
    error: DetectionError = kind.__new__(kind)
    Exception.__init__(error, record.message)
    facts = dict(record.facts)
    if "faults" in facts:
        facts["faults"] = msgspec.convert(facts["faults"], tuple[Fault, ...])
    vars(error).update(facts)
    return error


def _kinds() -> dict[str, type[DetectionError]]:
    return {kind.__name__: kind for kind in _below(DetectionError)} | {
        DetectionError.__name__: DetectionError
    }


def _below(kind: type[DetectionError]) -> Iterator[type[DetectionError]]:
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
            yield from _below(each)
