"""Messages count correctly and hold nothing that a terminal or a database would trip over."""

from __future__ import annotations

import pytest

from detection.data.numbers import parse_number
from detection.data.wording import counted, printable, quoted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (12_000, "12,000 files")]
)
def test_counted(number: int, words: str) -> None:
    assert counted(number, "file") == words


def test_counted_with_a_plural_of_its_own() -> None:
    assert counted(1, "box", "boxes") == "1 box"
    assert counted(3, "box", "boxes") == "3 boxes"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe", "größe"),
        ("a\nb\0", "a\\u000ab\\u0000"),
        ("\u202e\ud800", "\\u202e\\ud800"),
        ("x" * 11, "x" * 10 + "…"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text, 10) == shown


def test_quoted() -> None:
    assert quoted("a\nb", 2) == r"'a\u000a…'"


@pytest.mark.parametrize(
    ("text", "number"),
    [("12.5", 12.5), (" -3 ", -3), ("+.5", 0.5), ("1.", 1), ("2E-3", 0.002), ("-inf", -1e999)],
)
def test_numbers(text: str, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", " ", "x", "12,5", "1_0", "0x1F", "٣", "1 2", "--1", "1e", "9" * 500])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="is no number"):
        parse_number(text)
