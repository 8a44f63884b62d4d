"""Lists, newest first: one keyset page, and a cursor that is nobody's business."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, get_args

from fastapi import Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.api.shapes import EXAMPLE_ID, example_of
from app.errors import InvalidInputError, Problem

Row = TypeVar("Row")
Item = TypeVar("Item")

MAX_LIMIT = 200


def _add_example(schema: dict[str, Any], page: type[BaseModel]) -> None:
    (item,) = get_args(page.model_fields["items"].annotation)
    schema["example"] = {"items": [example_of(item)], "next_cursor": encode_cursor(EXAMPLE_ID)}


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra=_add_example)

    items: list[Item]
    """The newest first; pictures in the dataset's own order."""
    next_cursor: str | None
    """Give it back as `cursor` for the next page; null when there is none."""


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list is wanted."""

    limit: int
    after: str | None
    """The last key of the page before."""


def paging(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many at most.")] = 50,
    cursor: Annotated[
        str | None,
        Query(max_length=300, description="`next_cursor` of the page before.", pattern=r"^[A-Za-z0-9_=-]+$"),
    ] = None,
) -> Paging:
    return Paging(limit=limit, after=decode_cursor(cursor) if cursor is not None else None)


def newest_first(
    session: Session, query: Select[Row], key: InstrumentedAttribute[str], wanted: Paging
) -> tuple[Sequence[Row], str | None]:
    """Return one page of rows, the largest key first, and the cursor of the next page."""
    if wanted.after is not None:
        query = query.where(key < wanted.after)
    rows = session.scalars(query.order_by(key.desc()).limit(wanted.limit + 1)).all()
    page = rows[: wanted.limit]
    more = len(rows) > wanted.limit
    return page, encode_cursor(getattr(page[-1], key.key)) if more else None


def encode_cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def decode_cursor(cursor: str) -> str:
    try:
        key = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        key = ""
    if not key or not key.isprintable():
        raise strange_cursor()
    return key


def strange_cursor() -> InvalidInputError:
    fault = Problem(place="query", pointer="/cursor", problem="this is not a `next_cursor` of ours")
    return InvalidInputError("the cursor is not one of ours", problems=[fault])
