"""What is no HTTP, or none that is read here, and what its client is told."""

from __future__ import annotations

import json

import httptools

from app.api.problems import MEDIA_TYPE, problem_body
from app.database.tables import new_id
from app.errors import BadRequestError


class NoRequestError(Exception):
    """What comes could be HTTP, and is still nothing that is read here."""


def reason_of(error: Exception) -> str:
    """Return why nothing can be read, from what the parser or one of its callbacks has raised."""
    inner = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
    if isinstance(inner, NoRequestError):
        return str(inner)
    return "this is no HTTP request" + (f": {error}" if error is inner and str(error) else "")


def bad_request(reason: str) -> bytes:
    """Return the whole answer: no application takes part in it."""
    request_id = new_id()
    body = json.dumps(problem_body(BadRequestError(reason), request_id)).encode()
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-ID": request_id,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 400 Bad Request\r\n{lines}\r\n".encode() + body
