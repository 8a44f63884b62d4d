"""A multipart form read piece by piece: small fields into memory, each file straight to where it belongs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.faults import field_fault, file_wanted
from app.errors import (
    BadRequestError,
    PayloadTooLargeError,
    UnsupportedMediaError,
)

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 200
MAX_FIELD_BYTES = 64 * 1024
MAX_IDLE_BYTES = 64 * 1024
"""Bytes that belong to no part: before the first boundary or after the last."""


@dataclass(frozen=True, slots=True)
class PartHead:
    """What a part says about itself before its content comes."""

    name: str
    file_name: str | None
    content_type: str


class FileSink(Protocol):
    """Takes a file as it comes."""

    async def write(self, piece: bytes) -> None: ...

    async def finish(self) -> None: ...


OpenSink = Callable[[PartHead], Awaitable[FileSink]]
FormFields = dict[str, str | list[str]]


async def read_form(
    body: AsyncIterator[bytes],
    content_type: str,
    open_sink: OpenSink,
    *,
    repeatable: Collection[str] = (),
    files: Collection[str] = (),
) -> FormFields:
    """Read a form; return its plain fields. Files go to the sinks that `open_sink` returns for them.

    Args:
        repeatable: fields that may come several times; those that do have a list of their values.
        files: what is wanted as a file; a text instead may be anything, and come several times.

    Raises:
        UnsupportedMediaError: it is no multipart form.
        BadRequestError: it breaks the format, or is cut off.
        InvalidInputError: a field comes twice, or a long one where a file is wanted.
        PayloadTooLargeError: too many parts, or a field that is too long.
    """
    reader = _FormReader(_boundary(content_type), open_sink, repeatable, files)
    async for piece in body:
        await reader.feed(piece)
    reader.end()
    return reader.fields


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise UnsupportedMediaError("the body must be a multipart form (multipart/form-data)")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise BadRequestError("the Content-Type names no boundary")
    return boundary


class _FormReader:
    """The parser's callbacks cannot wait, so they only note what comes; then it is dealt with, in order."""

    def __init__(
        self, boundary: bytes, open_sink: OpenSink, repeatable: Collection[str], files: Collection[str]
    ) -> None:
        self.fields: FormFields = {}
        self._open_sink, self._repeatable, self._files = open_sink, repeatable, files
        self._noted: list[tuple[Callable[[bytes], Awaitable[None]], bytes]] = []
        self._num_parts = self._idle_bytes = 0
        self._ended = False
        self._headers: dict[bytes, bytes] = {}
        self._header_name, self._header_value = bytearray(), bytearray()
        self._head: PartHead | None = None
        self._field = bytearray()
        self._sink: FileSink | None = None
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError as error:
            raise BadRequestError(f"the form cannot be read: {error}") from None

    async def feed(self, piece: bytes) -> None:
        self._idle_bytes += len(piece) if self._ended else 0
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadRequestError(f"the form cannot be read: {error}") from None
        noted, self._noted = self._noted, []
        for deal_with, data in noted:
            await deal_with(data)
        self._idle_bytes += len(piece) if not self._num_parts else 0
        if self._idle_bytes > MAX_IDLE_BYTES:
            raise BadRequestError("there is too much before the first or after the last part of the form")

    def end(self) -> None:
        if not self._ended:
            raise BadRequestError("the form is cut off: its closing boundary is missing")

    def _callbacks(self) -> MultipartCallbacks:
        def moment(deal_with: Callable[[bytes], Awaitable[None]]) -> Callable[[], None]:
            return lambda: self._noted.append((deal_with, b""))

        def data(deal_with: Callable[[bytes], Awaitable[None]]) -> Callable[[bytes, int, int], None]:
            return lambda content, start, end: self._noted.append((deal_with, content[start:end]))

        return {
            "on_part_begin": moment(self._begin_part),
            "on_header_field": data(self._take_header_name),
            "on_header_value": data(self._take_header_value),
            "on_header_end": moment(self._end_header),
            "on_headers_finished": moment(self._end_head),
            "on_part_data": data(self._take_content),
            "on_part_end": moment(self._end_part),
            "on_end": moment(self._end_form),
        }

    async def _begin_part(self, _: bytes) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise PayloadTooLargeError(f"a form may have at most {MAX_PARTS} parts")
        self._headers, self._field = {}, bytearray()

    async def _take_header_name(self, data: bytes) -> None:
        self._header_name += data

    async def _take_header_value(self, data: bytes) -> None:
        self._header_value += data

    async def _end_header(self, _: bytes) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    async def _end_head(self, _: bytes) -> None:
        self._head = _head_of(self._headers)
        if self._head.file_name is not None:
            self._sink = await self._open_sink(self._head)

    async def _take_content(self, data: bytes) -> None:
        if self._sink is not None:
            await self._sink.write(data)
            return
        self._field += data
        if len(self._field) > MAX_FIELD_BYTES:
            if self._head is not None and self._head.name in self._files:
                raise field_fault(self._head.name, file_wanted(self._head.name, ""))
            raise PayloadTooLargeError(f"a field may have at most {MAX_FIELD_BYTES} bytes")

    async def _end_part(self, _: bytes) -> None:
        if self._sink is not None:
            await self._sink.finish()
            self._sink = None
        elif self._head is not None:
            self._add_field(self._head.name, bytes(self._field))
        self._head = None

    async def _end_form(self, _: bytes) -> None:
        self._ended = True

    def _add_field(self, name: str, content: bytes) -> None:
        if name in self._files:  # of which only the first is told
            self.fields.setdefault(name, content.decode("utf-8", "replace"))
            return
        if name in self.fields and name not in self._repeatable:
            raise field_fault(name, "the field comes twice")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise field_fault(name, "the field is not UTF-8") from None
        if "\0" in text:
            raise field_fault(name, "the field holds NUL")
        before = self.fields.get(name)
        self.fields[name] = text if before is None else [*_listed(before), text]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _head_of(headers: dict[bytes, bytes]) -> PartHead:
    kind, options = parse_options_header(headers.get(b"content-disposition"))
    if kind != b"form-data" or b"name" not in options:
        raise BadRequestError("a part of the form has no name")
    if b"\0" in b"".join(options.values()):
        raise BadRequestError("a name in the form holds NUL")
    file_name = options.get(b"filename")
    return PartHead(
        name=options[b"name"].decode("utf-8", "replace"),
        file_name=file_name.decode("utf-8", "replace") if file_name is not None else None,
        content_type=headers.get(b"content-type", b"").decode("latin-1"),
    )
