"""What pydantic found wrong, in words for users: one fault a mistake, with its place and what was meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.api.suggestions import DID_YOU_MEAN, did_you_mean, field_like
from app.errors import InvalidInputError, Place, Problem

# Pydantic names the same fault differently for models and for dataclasses.
UNKNOWN_FIELD = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
NO_OBJECT = frozenset({"model_attributes_type", "model_type", "dataclass_type"})
ONE_OF = frozenset({"enum", "literal_error"})
MOST_FAULTS = 100
"""In one answer; a body of a megabyte can have a hundred thousand."""
NOT_KNOWN = "this field is not known"
SHOULD_BE = "Input should be "
LONGEST_FILE_NAME = 255


def problems_of(
    faults: Sequence[Mapping[str, Any]], *, shape: object, sent: object = None, place: Place = "body"
) -> list[Problem]:
    """Return the faults that pydantic found in what was sent in one place of a request, the first hundred.

    Args:
        shape: the type it was read as; its fields are suggested instead of those that are not known.
        sent: a JSON document, to tell its keys from the members of unions that pydantic's paths also name.
    """
    found: dict[str, str] = {}
    for fault in faults[:MOST_FAULTS]:
        pointer, problem = _pointer(fault["loc"], sent), _in_words(fault, shape)
        found[pointer] = _either(found[pointer], problem) if pointer in found else problem
    return [Problem(pointer=pointer, problem=problem, place=place) for pointer, problem in found.items()]


def invalid_input(problems: Sequence[Problem]) -> InvalidInputError:
    """Return the answer that lists these faults, at least one; one whose remedy is known comes first."""
    problems = sorted(problems, key=lambda fault: DID_YOU_MEAN not in fault.problem)
    first = problems[0]
    rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidInputError(f"{first.pointer or first.place}: {first.problem}{rest}", problems=problems)


def field_fault(name: str, problem: str) -> InvalidInputError:
    """Return the answer to one field of a body that is wrong."""
    return fault_at(pointer_to(name), problem)


def fault_at(pointer: str, problem: str) -> InvalidInputError:
    return invalid_input([Problem(pointer=pointer, problem=problem)])


def pointer_to(*keys: str | int) -> str:
    """Return the JSON pointer to what lies below these keys and places, from the outermost inwards."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def file_wanted(field: str, text: str) -> str:
    """Say that a file should be where a form has a text, which is most likely the name of that file."""
    is_name = 0 < len(text) <= LONGEST_FILE_NAME and text.isprintable()
    example = f"{field}=@{text}" if is_name else f"{field}=@FILE"
    return f"a file is wanted, not a text; with curl: -F {shlex.quote(example)}"


def _in_words(fault: Mapping[str, Any], shape: object) -> str:
    kind, path = fault["type"], fault["loc"]
    if kind in UNKNOWN_FIELD:
        return NOT_KNOWN + field_like(shape, path)
    if kind in NO_OBJECT:
        return "this is no JSON object" + ("" if path else " with Content-Type: application/json")
    message: str = fault["msg"].removeprefix("Value error, ")
    if kind in ONE_OF:
        return message + did_you_mean(str(fault["input"]), re.findall("'([^']*)'", fault["ctx"]["expected"]))
    return message


def _either(first: str, second: str) -> str:
    """Join what two members of a union say about one value, which could be right in either way."""
    if second == first or not second.startswith(SHOULD_BE):
        return first
    return f"{first}, or {second.removeprefix(SHOULD_BE)}"


def _pointer(path: Sequence[str | int], sent: object) -> str:
    return pointer_to(*_keys(path, sent))


def _keys(path: Sequence[str | int], sent: object) -> Iterator[str | int]:
    """Yield the parts of a path that are keys and indices of what was sent; a missing one is the last."""
    here = sent
    for number, part in enumerate(path):
        is_last = number == len(path) - 1
        if isinstance(here, Mapping) and (part in here or is_last):
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and (part < len(here) or is_last):
            here = here[part] if part < len(here) else None
        elif sent is not None:
            continue
        yield part
