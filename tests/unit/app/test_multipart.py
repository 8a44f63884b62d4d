"""Forms read piece by piece: the same whatever the pieces are, and refused when they break the rules."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.multipart import MAX_FIELD_BYTES, MAX_PARTS, FormFields, PartHead, read_form
from app.errors import (
    BadRequestError,
    HarrierError,
    InvalidInputError,
    PayloadTooLargeError,
    UnsupportedMediaError,
)

TYPE = "multipart/form-data; boundary=xYzZY"


class Sink:
    def __init__(self, head: PartHead) -> None:
        self.head, self.content, self.finished = head, b"", False

    async def write(self, piece: bytes) -> None:
        self.content += piece

    async def finish(self) -> None:
        self.finished = True


def part(name: str, content: bytes, file_name: str | None = None) -> bytes:
    file = f'; filename="{file_name}"' if file_name is not None else ""
    head = f'--xYzZY\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = b"--xYzZY--\r\n"


def read(
    pieces: Iterable[bytes], content_type: str = TYPE, *, repeatable: Collection[str] = ()
) -> tuple[FormFields, list[Sink]]:
    sinks: list[Sink] = []

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def open_sink(head: PartHead) -> Sink:
        sinks.append(Sink(head))
        return sinks[-1]

    return asyncio.run(read_form(body(), content_type, open_sink, repeatable=repeatable)), sinks


def test_fields_and_files_are_told_apart() -> None:
    fields, (sink,) = read([part("name", b"pets") + part("archive", b"\x00\xffzip", "a.zip") + END])
    assert fields == {"name": "pets"}
    assert (sink.head.name, sink.head.file_name, sink.content, sink.finished) == (
        "archive",
        "a.zip",
        b"\x00\xffzip",
        True,
    )


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(0, 600), max_size=20))
def test_the_cuts_between_pieces_do_not_matter(content: bytes, cuts: list[int]) -> None:
    whole = part("a", b"1") + part("file", content, "f") + part("b", "ü".encode()) + END
    edges = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    pieces = [whole[start:stop] for start, stop in itertools.pairwise(edges)]
    fields, (sink,) = read(pieces)
    assert fields == {"a": "1", "b": "ü"}
    assert sink.content == content


def test_a_field_may_come_several_times_where_that_is_said() -> None:
    form = [part("class", b"cat"), part("class", b"dog"), part("class", b"owl"), part("name", b"x"), END]
    fields, _ = read([b"".join(form)], repeatable={"class"})
    assert fields == {"class": ["cat", "dog", "owl"], "name": "x"}
    with pytest.raises(InvalidInputError, match="comes twice"):
        read([b"".join(form)], repeatable={"name"})


def test_what_looks_like_a_boundary_is_content() -> None:
    tricky = b"\r\n--xYzZ\r\n--xYzZYnot\r\n-"
    _, (sink,) = read([bytes([byte]) for byte in part("file", tricky, "f") + END])
    assert sink.content == tricky


def test_an_empty_file_name_is_still_a_file() -> None:
    _, (sink,) = read([part("file", b"x", "") + END])
    assert sink.head.file_name == ""


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", BadRequestError),
        (part("a", b"1"), BadRequestError),
        (part("a", b"1") + b"--xYzZY", BadRequestError),
        (b"no boundary at all", BadRequestError),
        (b"--xYzZY\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END, BadRequestError),
        (b"--xYzZY\r\nX: y\r\n\r\nx\r\n" + END, BadRequestError),
        (b"--xYzZY\r\n" + b"X: y\r\n" * 20 + b"\r\nx\r\n" + END, BadRequestError),
        (b"--xYzZY\r\nX: " + b"y" * 10_000 + b"\r\n\r\nx\r\n" + END, BadRequestError),
        (b"\r\n" * 100_000, BadRequestError),
        (part("a", b"1") + END + b"\r\n" * 100_000, BadRequestError),
        (part("a", b"1") + part("a", b"2") + END, InvalidInputError),
        (part("a", b"\xff") + END, InvalidInputError),
        (part("a", b"\x00") + END, InvalidInputError),
        (part("a", b"x" * (MAX_FIELD_BYTES + 1)) + END, PayloadTooLargeError),
        (b"".join(part(str(n), b"") for n in range(MAX_PARTS + 1)) + END, PayloadTooLargeError),
    ],
)
@pytest.mark.parametrize("size", [7, 65536])
def test_a_form_that_breaks_the_rules_is_refused(body: bytes, error: type[HarrierError], size: int) -> None:
    with pytest.raises(error):
        read([body[start : start + size] for start in range(0, len(body), size)])


@pytest.mark.parametrize(
    ("content_type", "error"),
    [
        ("", UnsupportedMediaError),
        ("application/json", UnsupportedMediaError),
        ("multipart/mixed; boundary=x", UnsupportedMediaError),
        ("multipart/form-data", BadRequestError),
        ("multipart/form-data; boundary=", BadRequestError),
        ("multipart/form-data; boundary=" + "x" * 1_000_000, BadRequestError),
        ("multipart/form-data; " + 'a="\\' * 50_000, BadRequestError),
    ],
)
def test_only_a_form_with_a_boundary_is_read(content_type: str, error: type[HarrierError]) -> None:
    with pytest.raises(error):
        read([END], content_type)
