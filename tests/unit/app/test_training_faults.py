"""Contradictions in a training request: all of them, and none that rests on a field that is wrong itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.errors import InvalidInputError
from app.training.faults import contradictions, read_request


def pointers(body: Mapping[str, Any]) -> list[str]:
    """Return where a body is wrong, as the call does: by pydantic and by the recipe."""
    try:
        found = contradictions(read_request({"dataset_id": "d", **body}))
    except InvalidInputError as error:
        found = [*error.problems]
    return [problem.pointer for problem in found]


def test_a_right_request_has_no_faults() -> None:
    assert pointers({"architecture": "yolox-s", "epochs": 20, "optimizer": {"lr": 0.1}}) == []


@pytest.mark.parametrize(
    ("body", "owner"),
    [
        ({"architecture": "nanodet-plus-m", "augmentation": {"mosaic": 1}}, "yolox"),
        ({"architecture": "nanodet-plus-m", "loss": {"l1": "always"}}, "yolox"),
        ({"loss": {"qfl_weight": 1}}, "nanodet-plus"),
        ({"augmentation": {"keep_ratio": True}}, "nanodet-plus"),
    ],
)
def test_a_field_of_another_family_is_said_to_be_one(body: dict[str, Any], owner: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_request({"dataset_id": "d", **body})
    (fault,) = caught.value.problems
    assert fault.problem.startswith(f"only trainings of {owner} have this field; this one is of ")


def test_a_field_of_no_family_is_not_known() -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_request({"dataset_id": "d", "loss": {"qfl": 1}, "los": 1, "epochs": {"x": 1}})
    unknown = [fault.problem for fault in caught.value.problems if fault.pointer in ("/loss/qfl", "/los")]
    assert len(unknown) == 2
    assert all(problem.startswith("this field is not known") for problem in unknown)


def test_contradictions_stand_beside_wrong_fields() -> None:
    body = {
        "seed": -1,
        "architecture": "yolox",
        "sync_bn": True,
        "optimizer": {"lr": 1, "lr_per_image": 1, "knd": "sgd"},
        "augmentation": {"mosaic_scale": [1], "affine_scale": [2, 1]},
        "init_exclude": ["head"],
    }
    assert set(pointers(body)) == {
        "/seed",
        "/architecture",
        "/sync_bn",
        "/optimizer/knd",
        "/optimizer/lr_per_image",
        "/augmentation/mosaic_scale/1",
        "/augmentation/affine_scale",
        "/init_exclude",
    }


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"epochs": 0, "schedule": {"no_aug_epochs": 400}}, "/epochs"),
        ({"epochs": 0, "schedule": {"warmup_epochs": 400.0}}, "/epochs"),
        ({"init": 1, "init_exclude": ["head"]}, "/init"),
        ({"init": "x" * 65, "weight_init": {"kind": "normal"}}, "/init"),
        ({"optimizer": {"lr": "fast", "lr_per_image": 1}}, "/optimizer/lr"),
        ({"optimizer": {"kind": "sdg", "momentum": 0}}, "/optimizer/kind"),
        ({"architecture": "yolo", "input_size": 100}, "/architecture"),
        ({"architecture": 7, "input_size": 100}, "/architecture"),
        ({"processes": 0, "batch_size": 3, "device": "cpu"}, "/processes"),
        ({"schedule": 5, "epochs": 3}, "/schedule"),
        ({"freeze": {"parts": ["tail"], "epochs": 3}}, "/freeze/parts/0"),
    ],
)
def test_nothing_is_said_that_rests_on_a_wrong_field(body: dict[str, Any], wrong: str) -> None:
    assert pointers(body) == [wrong]


def test_a_hole_hides_no_other_fault() -> None:
    body = {"epochs": 0, "schedule": {"kind": "multistep", "no_aug_epochs": 5}, "sync_bn": True}
    found = pointers(body)
    assert {"/epochs", "/schedule/milestones", "/sync_bn"} <= set(found)
    assert "/schedule/no_aug_epochs" not in found


def test_the_nearest_architecture_is_suggested() -> None:
    [problem] = contradictions(read_request({"dataset_id": "d", "architecture": "yolox_nano"}))
    assert problem.problem.endswith("; did you mean `yolox-nano`?")


@pytest.mark.parametrize("body", [[], "text", 5, None])
def test_what_is_no_object_has_one_fault(body: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_request(body)
    assert [problem.pointer for problem in caught.value.problems] == [""]


def test_strange_keys_are_taken_out_as_well() -> None:
    assert pointers({"a/b": 1, "c~d": 2, "sync_bn": True}) == ["/a~1b", "/c~0d", "/sync_bn"]


def test_more_faults_than_an_answer_lists_are_no_reason_to_fail() -> None:
    assert len(pointers({f"field{number}": 1 for number in range(1000)})) == 100
