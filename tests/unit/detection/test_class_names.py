"""Class names are one line of visible text; whatever an archive calls its classes, nothing else gets in."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.names import checked_name
from detection.data.class_names import ClassNames, clean_class_name, report_similar
from detection.data.finding_log import FindingLog
from detection.data.findings import Action, Severity
from detection.data.importing import read_dataset
from detection.errors import DatasetFormatError
from detection.names import NAME_LENGTH
from tests.datasets import picture, write_files

NORMALIZE = unicodedata.normalize


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("cat", "cat"),
        ("  red\t cell\r\n", "red cell"),
        ("no\0thing", "no thing"),
        ("\x1b[31mred", "[31mred"),
        ("evil\u202egpj.exe", "evilgpj.exe"),
        ("\u200bcat\ufeff", "cat"),
        ("gr\u006f\u0308\u00dfe", "größe"),
        ("קטן", "קטן"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("=cmd()", "=cmd()"),
        ("👩\u200d🚒", "👩\u200d🚒"),
        ("cat\u200d", "cat"),
        ("\ud800", ""),
        ("\u2028\u00a0\u3000", ""),
        ("x" * 10_000, "x" * NAME_LENGTH),
        (7, "7"),
    ],
)
def test_cleaning(raw: object, name: str) -> None:
    assert clean_class_name(raw) == name


@given(st.text())
def test_a_clean_name_can_be_shown_and_stays_as_it_is(raw: str) -> None:
    name = clean_class_name(raw)

    assert clean_class_name(name) == name
    assert len(name) <= NAME_LENGTH
    assert not {"Cc", "Cs", "Zl", "Zp"} & set(map(unicodedata.category, name))
    assert name.encode().decode() == name


@given(st.text().map(clean_class_name).filter(bool))
def test_whatever_a_dataset_calls_a_class_can_be_named_in_a_request(name: str) -> None:
    assert checked_name(name) == name


def test_every_change_is_one_finding() -> None:
    log = FindingLog()
    names = ClassNames(log)

    assert [names.take(raw, "a.xml", "object 1") for raw in ("cat", " cat", " cat", "c\0at")] == [
        "cat",
        "cat",
        "cat",
        "c at",
    ]
    assert [(f.code, f.action, f.severity) for f in log.findings] == [
        ("class_name_fixed", Action.FIXED, Severity.INFO),
        ("class_name_fixed", Action.FIXED, Severity.WARNING),
    ]
    assert "'c\\u0000at' (4 characters) became 'c at'" in log.findings[1].message


def test_long_names_that_differ_only_behind_the_cut_stay_two() -> None:
    log = FindingLog()
    names = ClassNames(log)

    first, second = (names.take("x" * 10_000 + end, "a", "") for end in "ab")

    assert first != second
    assert len(first) == len(second) == NAME_LENGTH
    assert all(len(finding.message) < 300 for finding in log.findings)


def test_names_that_begin_alike_are_numbered_without_counting_anew() -> None:
    class Counted(set[str]):
        looks = 0

        def __contains__(self, name: object) -> bool:
            self.looks += 1
            return super().__contains__(name)

    names = ClassNames(FindingLog())
    names._used = used = Counted()

    cleaned = {names.take("x" * NAME_LENGTH + str(number), "a") for number in range(1000)}

    assert len(cleaned) == 1000
    assert "x" * (NAME_LENGTH - 7) + " (1000)" in cleaned
    assert used.looks < 3000


def test_marks_without_end_are_not_put_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unicode's composition sorts the marks of a letter, in a time that grows with their square."""
    lengths: list[int] = []

    def normalize(form: Literal["NFC"], text: str) -> str:
        lengths.append(len(text))
        return NORMALIZE(form, text)

    monkeypatch.setattr(unicodedata, "normalize", normalize)

    assert len(clean_class_name("a" + "\u0301\u0323" * 10_000)) == NAME_LENGTH
    assert max(lengths) <= 2000


def test_invented_names_take_no_name_of_another_class() -> None:
    log = FindingLog()
    names = ClassNames(log)
    names.take("class_1", "a")

    assert names.invent("class_1", "a", "class 1") == "class_1 (2)"
    assert names.invent("class_1", "a", "class 1") == "class_1 (2)", "the same class in another file"
    assert log.counts == {"class_name_fixed": 1}


def test_names_that_differ_only_in_case_or_spaces_are_named() -> None:
    log = FindingLog()

    report_similar(["Cat", "dog", "cat", "c at", "cats"], log)

    assert [finding.message.split(" differs")[0] for finding in log.findings] == ["'cat'", "'c at'"]
    assert {(finding.code, finding.action) for finding in log.findings} == {("class_similar", Action.KEPT)}


def test_similar_names_stay_two_classes(tmp_path: Path) -> None:
    files = {
        "images/a.jpg": picture(),
        "labels/a.txt": "0 .5 .5 .5 .5\n1 .2 .2 .2 .2",
        "classes.txt": "Cat\ncat",
    }

    result = read_dataset(write_files(tmp_path, files))

    assert result.dataset.classes == ("Cat", "cat")
    assert result.finding_counts["class_similar"] == 1


def test_more_classes_than_any_dataset_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detection.data.class_names.MOST_CLASSES", 2)
    files = {"images/a.jpg": picture(), "labels/a.txt": "0 .5 .5 .5 .5", "classes.txt": "a\nb\nc"}

    with pytest.raises(
        DatasetFormatError, match="it has more than 2 classes, the most that a dataset may have"
    ):
        read_dataset(write_files(tmp_path, files))
