"""Who may answer in another model's place."""

from __future__ import annotations

from app.detect.stand_ins import MOST_NAMES, StandIns
from app.detect.wire import ServedModel
from detection.model_record import ModelRecord


def served(model_id: str, *classes: str) -> ServedModel:
    record = ModelRecord(architecture="yolox-nano", classes=classes or ("cat",), input_size_hw=(64, 64))
    return ServedModel(id=model_id, record=record, files=())


def test_the_last_to_answer_stands_in_for_its_own_name_only() -> None:
    stand_ins = StandIns()
    assert stand_ins.find(None, served("new"), names_classes=False) is None
    stand_ins.note(None, served("old"))
    assert stand_ins.find(None, served("new"), names_classes=False) == served("old")
    assert stand_ins.find(None, served("old"), names_classes=False) is None
    assert stand_ins.find("night", served("new"), names_classes=False) is None


def test_classes_must_have_the_same_numbers_when_they_are_asked_for() -> None:
    stand_ins = StandIns()
    stand_ins.note(None, served("old", "cat", "dog"))
    swapped = served("new", "dog", "cat")
    assert stand_ins.find(None, swapped, names_classes=False) is not None
    assert stand_ins.find(None, swapped, names_classes=True) is None
    assert stand_ins.find(None, served("new", "cat", "dog"), names_classes=True) is not None


def test_not_every_name_is_remembered() -> None:
    stand_ins = StandIns()
    for number in range(MOST_NAMES + 1):
        stand_ins.note(f"name {number}", served("old"))
    assert stand_ins.find("name 0", served("new"), names_classes=False) is None
    assert stand_ins.find(f"name {MOST_NAMES}", served("new"), names_classes=False) is not None


def test_names_in_use_and_those_that_matter_are_kept() -> None:
    stand_ins = StandIns()
    stand_ins.note(None, served("old"))
    for number in range(MOST_NAMES):
        stand_ins.note(f"id {number}", served(f"id {number}"))
    assert stand_ins.find(None, served("new"), names_classes=False) is not None, "an id takes no place"
    for number in range(MOST_NAMES):
        stand_ins.note(None, served("old"))
        stand_ins.note(f"name {number}", served("old"))
    assert stand_ins.find(None, served("new"), names_classes=False) is not None
