"""The query of a request: what no call describes is a mistake, and so is what stands there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute

from app.api.faults import invalid_input, pointer_to
from app.api.suggestions import did_you_mean
from app.errors import Problem

MOST_FAULTS = 100


def check_query(request: Request) -> None:
    """Compare the names in the query with those that OpenAPI describes.

    Raises:
        InvalidInputError: some are not known, or stand there more than once and take one value.
    """
    if not request.url.query:
        return
    route: APIRoute = request.scope["route"]
    call = request.app.openapi()["paths"][route.path_format][request.method.lower()]
    known = {each["name"]: each["schema"] for each in call.get("parameters", ()) if each["in"] == "query"}
    given = Counter(name for name, _ in request.query_params.multi_items())
    faults = [*_faults(given, known)]
    if faults:
        raise invalid_input(faults[:MOST_FAULTS])


def _faults(given: Mapping[str, int], known: Mapping[str, Any]) -> Iterator[Problem]:
    for name, times in given.items():
        if name not in known:
            yield _fault(name, "this parameter is not known" + did_you_mean(name, sorted(known)))
        elif times > 1 and not _takes_several(known[name]):
            yield _fault(name, f"this parameter takes one value, and is there {times} times")


def _fault(name: str, problem: str) -> Problem:
    return Problem(place="query", pointer=pointer_to(name), problem=problem)


def _takes_several(schema: Mapping[str, Any]) -> bool:
    return any(each.get("type") == "array" for each in (schema, *schema.get("anyOf", ())))
