"""JSON that every reader reads alike; the rest is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.strict_json import strict_json
from app.errors import PayloadTooLargeError

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
)


@given(documents, st.booleans())
def test_what_is_written_is_read(document: object, ascii_only: bool) -> None:
    assert strict_json(json.dumps(document, ensure_ascii=ascii_only).encode()) == document


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "Expecting"),
        (b"", "Expecting"),
        (b"\xff\xfe", "utf-8"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "too large"),
        (b"[-1e999]", "too large"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'[{"b": {"a": 1, "a": 2}}]', "twice"),
        (b'"\\ud800"', "half a character"),
        (b'{"\\udfff": 1}', "half a character"),
        (b'["\\u0000"]', "NUL"),
        (b'"\x00"', "control"),
        (b"[" * 9_000, "nested"),
        (b'{"a":' * 9_000, "nested"),
        (b"[" * 40 + b"]" * 40, "nested"),
        (b"1" * 5000, "too large"),
        (b"1 2", "Extra data"),
    ],
)
def test_what_readers_disagree_about_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        strict_json(content)


@pytest.mark.parametrize("content", [b"[" + b"0," * 10_000 + b"0]", b"[" * 20_000, b'{"a":' * 20_000])
def test_what_would_be_too_much_to_hold_is_not_even_parsed(content: bytes) -> None:
    with pytest.raises(PayloadTooLargeError, match="at most 10 000 values"):
        strict_json(content)
    assert strict_json(b"[" + b"0," * 9_990 + b"0]") == [0] * 9_991


def test_an_escaped_backslash_is_no_escape() -> None:
    assert strict_json(rb'"\\u0000 \\ud800"') == r"\u0000 \ud800"


def test_a_pair_of_halves_is_a_character() -> None:
    assert strict_json(rb'"\ud83d\ude00"') == "😀"
