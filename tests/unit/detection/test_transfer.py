"""Weights that begin with those of another model: what is taken, and what is said of the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from detection.architectures import ARCHITECTURES
from detection.errors import WeightsError
from detection.models import create_model
from detection.models.transfer import MOST_NAMES, LoadReport, intersect, load_matching


def state(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("_", "."): torch.zeros(shape) for name, shape in shapes.items()}


def test_entries_match_by_name_and_shape_and_the_rest_is_named() -> None:
    first = state(a_weight=(2, 2), a_bias=(2,), b_weight=(3, 2), c_weight=(1,))
    found = intersect(first, state(a_weight=(2, 2), a_bias=(2,), b_weight=(3, 3)), ["bias"])
    assert list(found.matching) == ["a.weight"]
    assert found.matching["a.weight"] is first["a.weight"]
    assert (found.excluded, found.unknown, found.mismatched) == (("a.bias",), ("c.weight",), ("b.weight",))
    assert found.summary() == (
        "1 entries match, skipped: 1 excluded, 1 without a counterpart, 1 of another shape"
    )


def test_an_excluded_text_may_stand_anywhere_in_a_name() -> None:
    first = state(head_cls_weight=(1,), neck_cls=(1,), body_weight=(1,))
    assert intersect(first, first, ["cls", "nothing"]).excluded == ("head.cls.weight", "neck.cls")
    assert intersect(first, first).summary() == "3 entries match"


def test_nothing_in_common_is_an_empty_intersection() -> None:
    assert intersect({}, state(a=(1,))).matching == {}
    assert intersect(state(a=(1,)), {}).unknown == ("a",)


def test_what_fits_is_loaded_and_the_rest_is_named() -> None:
    old, new = create_model("yolox-nano", num_classes=5), create_model("yolox-nano", num_classes=2)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    state = {**old.state_dict(), "unknown": torch.zeros(1)}
    del state["head.stems.0.conv.weight"]
    report = load_matching(new, state, exclude=["obj_preds"])
    excluded = {name for name in before if "obj_preds" in name}
    classes = {f"head.cls_preds.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")}
    assert set(report.mismatched) == classes
    assert set(report.excluded) == excluded
    assert report.left == ("unknown",)
    assert set(report.missing) == excluded | {"head.stems.0.conv.weight"}
    assert set(report.taken) == before.keys() - classes - set(report.missing)
    for name, value in new.state_dict().items():
        assert torch.equal(value, old.state_dict()[name] if name in report.taken else before[name])


@pytest.mark.parametrize(
    ("name", "exclude", "problem"),
    [
        ("other", (), "none of the 1 weights fits the model"),
        ("weight", ("bias", "w"), "all 1 weights are excluded by 'bias', 'w'"),
    ],
)
def test_a_start_from_no_weight_at_all_is_refused(name: str, exclude: tuple[str, ...], problem: str) -> None:
    with pytest.raises(WeightsError, match=problem):
        load_matching(nn.Linear(2, 2), {name: torch.zeros(2, 2)}, exclude=exclude)


def test_loading_nothing_at_all_is_an_error() -> None:
    with pytest.raises(WeightsError, match="none of the 1 weights fits"):
        load_matching(nn.Conv2d(1, 1, 1), {"other": torch.zeros(1)})


def test_the_counter_of_a_norm_goes_with_its_statistics() -> None:
    """It has the same shape in every norm; taken alone it would speak of batches that nobody saw."""

    def normed(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels), nn.Linear(2, 2))

    old, new = normed(3), normed(4)
    old[1].get_buffer("num_batches_tracked").fill_(7)
    report = load_matching(new, old.state_dict())
    assert report.taken == ("2.weight", "2.bias")
    assert "1.num_batches_tracked" in report.mismatched
    assert new[1].get_buffer("num_batches_tracked") == 0
    same = normed(3)
    load_matching(same, old.state_dict())
    assert same[1].get_buffer("num_batches_tracked") == 7


def test_the_report_holds_all_counts_and_the_first_names() -> None:
    names = tuple(f"layer{number}" for number in range(MOST_NAMES + 5))
    told = LoadReport(taken=names, left=("x",), excluded=(), missing=("m",), mismatched=()).as_json()
    assert told["counts"] == {
        "taken": MOST_NAMES + 5,
        "missing": 1,
        "mismatched": 0,
        "excluded": 0,
        "left": 1,
    }
    assert (len(told["taken"]), told["left"], told["missing"]) == (MOST_NAMES, ["x"], ["m"])
    json.dumps(told)


def shapes_of(architecture: str) -> Mapping[str, torch.Size]:
    with torch.device("meta"):
        return {
            name: value.shape
            for name, value in create_model(architecture, num_classes=80).state_dict().items()
            if not name.endswith("num_batches_tracked")
        }


def test_families_have_nothing_in_common() -> None:
    """So a training from a model of another family is refused before it is queued."""
    shapes = {name: shapes_of(name) for name in ("yolox-nano", "yolox-s", "nanodet-plus-m")}
    for one in shapes:
        for other in shapes:
            common = {*shapes[one].items()} & {*shapes[other].items()}
            assert bool(common) == (ARCHITECTURES[one].family == ARCHITECTURES[other].family), (one, other)
