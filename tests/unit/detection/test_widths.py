"""Detectors that are as narrow as their weights: rebuilt, recognised, and refused where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from detection.analysis.channel_pruning import prune_channels
from detection.errors import WeightsError
from detection.models import create_model, create_served_model, load_served_model
from detection.models.weights import PRUNED, read_weights
from detection.models.widths import shapes_in, shapes_of

NAME = "yolox-nano"


@pytest.fixture(scope="module")
def pruned() -> dict[str, Tensor]:
    detector = create_served_model(NAME, num_classes=2)
    prune_channels(detector, 0.5)
    return detector.state_dict()


def test_full_shapes_change_nothing() -> None:
    detector = create_model(NAME, num_classes=2)
    again = create_model(NAME, num_classes=2, shapes=shapes_of(detector.state_dict()))
    assert shapes_of(again.state_dict()) == shapes_of(detector.state_dict())


def test_the_last_convolutions_follow_the_classes(pruned: dict[str, Tensor]) -> None:
    detector = create_served_model(NAME, num_classes=5, shapes=shapes_of(pruned))
    shapes = shapes_of(detector.state_dict())
    others = {name for name in shapes if shapes[name] != tuple(pruned[name].shape)}
    assert others == {f"head.cls_preds.{level}.{entry}" for level in range(3) for entry in ("weight", "bias")}
    assert shapes["head.cls_preds.0.weight"][0] == 5


def test_wider_layers_and_other_kernels_are_refused() -> None:
    shapes = dict(shapes_of(create_model(NAME, num_classes=2).state_dict()))
    name = "backbone.backbone.stem.conv.conv"
    for shape in ((17, 12, 3, 3), (16, 12, 5, 5), (0, 12, 3, 3), (16, 12, 3)):
        with pytest.raises(WeightsError, match=rf"weight of '{name}'.*not wider or of another kernel"):
            create_model(NAME, num_classes=2, shapes={**shapes, f"{name}.weight": shape})


def test_widths_that_do_not_fit_each_other_are_refused(pruned: dict[str, Tensor]) -> None:
    shapes = {**shapes_of(pruned), "backbone.backbone.stem.conv.conv.weight": (3, 12, 3, 3)}
    with pytest.raises(WeightsError, match="do not fit each other"):
        create_model(NAME, num_classes=2, shapes=shapes)


def test_a_file_that_names_its_architecture_tells_its_shapes(
    pruned: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    save_file(pruned, path, metadata={"architecture": NAME})
    assert shapes_in(path, NAME) == shapes_of(pruned)
    assert shapes_in(path, "yolox-tiny") == {}
    save_file(pruned, path)
    assert shapes_in(path, NAME) == {}
    torch.save(pruned, path)
    assert shapes_in(path, NAME) == {}


def test_pruned_weights_are_recognised_by_what_their_file_says(
    pruned: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    save_file(pruned, path, metadata={"architecture": NAME})
    read = read_weights(path)
    assert (read.architecture, read.num_classes, read.folded) == (NAME, 2, False)
    assert PRUNED in read.report
    again = load_served_model(NAME, num_classes=2, state=read.state)
    assert all(torch.equal(value, pruned[name]) for name, value in again.state_dict().items())
    save_file(pruned, path)
    with pytest.raises(WeightsError, match="nearest to"):
        read_weights(path)
    save_file(pruned, path, metadata={"architecture": "yolox-tiny"})
    with pytest.raises(WeightsError, match="nearest to"):
        read_weights(path)


def test_pruned_weights_that_lack_an_entry_are_refused(pruned: dict[str, Tensor], tmp_path: Path) -> None:
    path, some = tmp_path / "weights", dict(pruned)
    del some["head.obj_preds.0.bias"]
    save_file(some, path, metadata={"architecture": NAME})
    with pytest.raises(WeightsError, match="nearest to"):
        read_weights(path)
