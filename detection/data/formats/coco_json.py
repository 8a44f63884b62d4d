"""The JSON of COCO files; elements are looked at one by one, so that a bad one spoils no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec

from detection.data.file_tree import FileTree
from detection.data.numbers import parse_number
from detection.errors import DatasetFormatError

MAX_JSON_BYTES = 1024**3
MAX_LAX_JSON_BYTES = 256 * 1024**2
"""Files with NaN in them are no JSON; the parser that takes them needs ten times the memory."""

Id = int | float | str


class Category(msgspec.Struct):
    """An element of `categories`."""

    id: Id
    name: Any = None


class Image(msgspec.Struct):
    """An element of `images`."""

    id: Id
    file_name: str
    width: Any = 0
    height: Any = 0


class _AnyAnnotation(msgspec.Struct, kw_only=True):
    """What the two kinds of an element of `annotations` share."""

    image_id: Id
    category_id: Id
    id: Id | None = None
    iscrowd: Any = 0
    difficult: Any = 0
    attributes: Any = None
    """CVAT's: an object of names and values."""


class Annotation(_AnyAnnotation, kw_only=True):
    """An element of `annotations`."""

    bbox: Annotated[list[float], msgspec.Meta(min_length=4, max_length=4)]
    """x, y, width, height."""


class TextAnnotation(_AnyAnnotation, kw_only=True):
    """The same with numbers written as text."""

    bbox: Annotated[list[float | str], msgspec.Meta(min_length=4, max_length=4)]


class Document(msgspec.Struct):
    """A whole file, its elements not looked at yet."""

    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw] = []


class LaxDocument(msgspec.Struct):
    """The same of a file that is no strict JSON."""

    images: list[Any]
    categories: list[Any]
    annotations: list[Any] = []


class _Head(msgspec.Struct):
    """What tells whether a file is meant to be COCO."""

    images: msgspec.Raw


class _Identified(msgspec.Struct):
    id: Id


Items = list[msgspec.Raw] | list[Any]
Item = TypeVar("Item", bound=msgspec.Struct)


class OtherJsonError(Exception):
    """A JSON file is about something else."""


def load_document(tree: FileTree, name: str) -> Document | LaxDocument:
    """Split a file into its lists.

    Raises:
        OtherJsonError: it has no `images`.
        DatasetFormatError: it is no JSON, or lacks a list; says what is expected.
    """
    content = tree.read(name, max_bytes=MAX_JSON_BYTES).removeprefix(b"\xef\xbb\xbf")
    try:
        return _parse(content)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if isinstance(error, msgspec.ValidationError) and not _has_images(content):
            raise OtherJsonError from None
        problem = f"it cannot be read as COCO, three lists `images`, `annotations`, `categories`: {error}"
        raise DatasetFormatError(name, "", problem) from None


def parse_items(items: Items, kind: type[Item]) -> Iterator[tuple[int, Item | str]]:
    """Yield number, counted from 1, and value of every element; a text instead of one that cannot be read."""
    for number, item in enumerate(items, start=1):
        try:
            yield number, decode_item(item, kind)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            yield number, str(error)


def decode_item(item: Any, kind: type[Item]) -> Item:
    """Return one element, strictly: a text is no number."""
    return (
        msgspec.json.decode(item, type=kind) if isinstance(item, msgspec.Raw) else msgspec.convert(item, kind)
    )


def parse_annotation(item: Any) -> tuple[Annotation, bool]:
    """Return an annotation, and whether numbers of its box are written as text.

    Raises:
        ValueError: it cannot be read; says what is wrong.
    """
    try:
        return decode_item(item, Annotation), False
    except (msgspec.DecodeError, RecursionError) as strict:
        problem = str(strict)
    try:
        lax = decode_item(item, TextAnnotation)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError(problem) from None
    sides = [parse_number(side) if isinstance(side, str) else side for side in lax.bbox]
    return Annotation(**{**msgspec.structs.asdict(lax), "bbox": sides}), True


def id_of(item: Any) -> str | None:
    """Return the id of an element that cannot be read as a whole."""
    try:
        return id_text(decode_item(item, _Identified).id)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def id_text(value: Id) -> str:
    """Ids are the same whether they are written as 5, 5.0 or "5"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def id_order(value: Id) -> tuple[int, str]:
    """Sort ids by number; those that are none come first, by text."""
    text = id_text(value)
    return (int(text), "") if text.isascii() and text.isdecimal() and len(text) < 20 else (-1, text)


def is_set(value: object) -> bool:
    """Return whether a flag is on, however the file writes that."""
    return str(value).strip().casefold() in ("1", "1.0", "true")


def stated_side(value: object) -> float:
    """Return a picture's width or height as the file states it, 0 where that is no number."""
    if not isinstance(value, str | int | float):
        return 0.0
    try:
        return parse_number(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return 0.0


def _parse(content: bytes) -> Document | LaxDocument:
    try:
        return msgspec.json.decode(content, type=Document)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if len(content) > MAX_LAX_JSON_BYTES:
            raise
    return msgspec.convert(json.loads(content), LaxDocument)  # takes NaN and Infinity


def _has_images(content: bytes) -> bool:
    """Return whether a file is meant to be COCO; one that no parser reads to its end may be."""
    try:
        msgspec.json.decode(content, type=_Head)
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _is_lax_object_with_images(content)
    return True


def _is_lax_object_with_images(content: bytes) -> bool:
    try:
        return isinstance(found := json.loads(content), dict) and "images" in found
    except (ValueError, RecursionError):
        return True
