"""Names: every script and every picture character may stand in one, nothing that hides or reorders may."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from pydantic import TypeAdapter, ValidationError

from app.api.shapes import ClassName, Name, NewClassName
from app.names import checked_name

SEEN_FORMATS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
"""Unicode calls them format characters, but they stand around numbers and are seen."""
JOINERS = "\u200c\u200d"


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "Blutzellen (Färbung 2)",
        "血球",
        "خلايا الدم",
        "می\u200cخواهم",
        "क्\u200dष",
        "👩\u200d🔬",
        "a b",
        "👍🏽",
    ],
)
def test_every_script_can_name_something(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "\u00a0", "\u3000 ", "\u200d", " \u200c\u200d "])
def test_a_name_that_nobody_can_see_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="at least one character that can be seen"):
        checked_name(name)


@pytest.mark.parametrize(
    "char",
    ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\xad", "\u061c", "\u200b", "\u200e", "\u200f", "\u2028"]
    + [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF, 0xE0041)],
    ids=lambda char: f"{ord(char):04X}",
)
def test_what_hides_or_reorders_is_refused(char: str) -> None:
    with pytest.raises(ValueError, match=rf"U\+{ord(char):04X}.* as character 5"):
        checked_name(f"cell{char}gpj.exe")


def test_unicode_has_no_other_such_characters() -> None:
    """All that it calls control, format or end of a line, besides joiners and those that are seen."""
    missed = []
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if unicodedata.category(char) not in ("Cc", "Cf", "Zl", "Zp") or char in SEEN_FORMATS + JOINERS:
            continue
        try:
            checked_name(f"a{char}")
        except ValueError:
            continue
        missed.append(f"{code:04X}")
    assert missed == []


def test_a_name_has_an_end() -> None:
    assert checked_name("x" * 200)
    with pytest.raises(ValueError, match="at most 200"):
        checked_name("x" * 201)


def test_names_are_stripped_and_old_class_names_are_taken_as_they_are() -> None:
    assert TypeAdapter(Name).validate_python("  cells \n") == "cells"
    assert TypeAdapter(ClassName).validate_python("cell\u202e\t") == "cell\u202e\t"
    for kind in (Name, NewClassName):
        with pytest.raises(ValidationError, match=r"U\+202E \(RIGHT-TO-LEFT OVERRIDE\)"):
            TypeAdapter(kind).validate_python("cell\u202egpj")
