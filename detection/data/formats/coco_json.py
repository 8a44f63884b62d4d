"""The JSON of COCO files; elements are looked at one by one, so that a bad one spoils no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec

from detection.data.file_tree import FileTree
from detection.errors import DatasetFormatError

MAX_JSON_BYTES = 1024**3
MAX_LAX_JSON_BYTES = 256 * 1024**2
"""Files with NaN in them are no JSON; the parser that takes them needs ten times the memory."""

Id = int | float | str


class Category(msgspec.Struct):
    """An element of `categories`."""

    id: Id
    name: Id


class Image(msgspec.Struct):
    """An element of `images`."""

    id: Id
    file_name: str
    width: float = 0
    height: float = 0


class Annotation(msgspec.Struct):
    """An element of `annotations`."""

    image_id: Id
    category_id: Id
    bbox: Annotated[list[float], msgspec.Meta(min_length=4, max_length=4)]
    """x, y, width, height."""
    id: Id | None = None
    iscrowd: Id | bool | None = 0
    difficult: Id | bool | None = 0


class Document(msgspec.Struct):
    """A whole file, its elements not looked at yet."""

    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw] = []


class LaxDocument(msgspec.Struct):
    """The same of a file that is no strict JSON."""

    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]] = []


Items = list[msgspec.Raw] | list[dict[str, Any]]
Item = TypeVar("Item", bound=msgspec.Struct)


def load_document(tree: FileTree, name: str) -> Document | LaxDocument:
    """Split a file into its lists.

    Raises:
        DatasetFormatError: it is no COCO file.
    """
    content = tree.read(name, max_bytes=MAX_JSON_BYTES).removeprefix(b"\xef\xbb\xbf")
    try:
        return _parse(content)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DatasetFormatError(name, "", f"it is no COCO file: {error}") from None


def parse_items(items: Items, kind: type[Item]) -> Iterator[tuple[int, Item | str]]:
    """Yield number, counted from 1, and value of every element; a text instead of one that cannot be read."""
    for number, item in enumerate(items, start=1):
        try:
            if isinstance(item, msgspec.Raw):
                yield number, msgspec.json.decode(item, type=kind, strict=False)
            else:
                yield number, msgspec.convert(item, kind, strict=False)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            yield number, str(error)


def id_text(value: Id) -> str:
    """Ids are the same whether they are written as 5, 5.0 or "5"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def id_order(value: Id) -> tuple[int, str]:
    """Sort ids by number; those that are none come first, by text."""
    text = id_text(value)
    return (int(text), "") if text.isascii() and text.isdecimal() and len(text) < 20 else (-1, text)


def is_set(value: Id | bool | None) -> bool:
    """Return whether a flag is on, however the file writes that."""
    return str(value).strip().casefold() in ("1", "1.0", "true")


def _parse(content: bytes) -> Document | LaxDocument:
    try:
        return msgspec.json.decode(content, type=Document)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if len(content) > MAX_LAX_JSON_BYTES:
            raise
    return msgspec.convert(json.loads(content), LaxDocument)  # takes NaN and Infinity
