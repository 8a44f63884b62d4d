"""Conditional requests: the client shows what it has, and gets nothing when that is still right."""

from __future__ import annotations

from fastapi import Response


def is_unchanged(etag: str, if_none_match: str | None) -> bool:
    """Return whether an If-None-Match header names this ETag; strong or weak makes no difference here."""
    if if_none_match is None:
        return False
    known = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return "*" in known or etag.removeprefix("W/") in known


def not_modified(etag: str, **headers: str) -> Response:
    return Response(status_code=304, headers={"ETag": etag, **headers})
