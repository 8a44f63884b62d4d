"""The query of a request: a parameter that no call describes is a mistake, and is not ignored."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from app.api.faults import invalid_input, pointer_to
from app.api.suggestions import did_you_mean
from app.errors import Problem

MOST_FAULTS = 100


def check_query(request: Request) -> None:
    """Compare the names in the query with those that OpenAPI describes.

    Raises:
        InvalidInputError: some are not known.
    """
    if not request.url.query:
        return
    route: APIRoute = request.scope["route"]
    call = request.app.openapi()["paths"][route.path_format][request.method.lower()]
    known = {each["name"] for each in call.get("parameters", ()) if each["in"] == "query"}
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise invalid_input([_fault(name, known) for name in unknown[:MOST_FAULTS]])


def _fault(name: str, known: set[str]) -> Problem:
    problem = "this parameter is not known" + (did_you_mean(name, sorted(known)))
    return Problem(place="query", pointer=pointer_to(name), problem=problem)
