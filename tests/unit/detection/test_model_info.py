"""What a network consists of, in one line and in a table."""

from __future__ import annotations

import json
import logging
import statistics
from pathlib import Path

import pytest
import torch
from torch import nn

from detection.analysis.model_info import extrapolated_gflops, model_info
from detection.models import create_model


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    model[0].requires_grad_(False)
    return model


def test_the_summary_counts_modules_parameters_and_operations() -> None:
    info = model_info(network(), (32, 64))
    assert (info.layers, info.parameters, info.gradients) == (4, 21, 5)
    assert info.gflops == info.gflops_extrapolated == 2 * 32 * 64 * (12 + 4) / 1e9
    assert info.summary() == "Model Summary: 4 layers, 21 parameters, 5 gradients, 0.00 GFLOPs"


def test_each_parameter_tensor_has_a_row() -> None:
    model = network()
    rows = model_info(model, 32).tensors
    assert [(row.index, row.name, row.gradient, row.count, row.shape) for row in rows] == [
        (0, "0.weight", False, 12, (4, 3, 1, 1)),
        (1, "0.bias", False, 4, (4,)),
        (2, "2.weight", True, 4, (1, 4, 1, 1)),
        (3, "2.bias", True, 1, (1,)),
    ]
    numbers = model[0].weight.detach().double().flatten().tolist()
    assert rows[0].mean == pytest.approx(statistics.fmean(numbers))
    assert rows[0].std == pytest.approx(statistics.stdev(numbers))
    assert rows[3].std is None, "one number has no deviation"


def test_what_cannot_be_counted_is_left_out() -> None:
    info = model_info(nn.Linear(3, 2))
    assert info.gflops is info.gflops_extrapolated is None
    assert info.summary() == "Model Summary: 1 layers, 8 parameters, 8 gradients"
    assert model_info(nn.ReLU()).gflops is None


def test_the_log_has_the_summary_and_the_table_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        info = model_info(network(), 32)
        model_info(network(), 32, verbose=True)
    assert caplog.messages == [info.summary(), info.table(), info.summary()]
    headings, first, *others = info.table().splitlines()
    assert headings.split() == ["index", "name", "gradient", "count", "shape", "mean", "std"]
    assert first.split()[:4] == ["0", "0.weight", "no", "12"]
    assert len(others) == 3


def test_extrapolation_is_exact_where_the_maps_divide_evenly() -> None:
    model = create_model("yolox-nano", num_classes=3)
    info = model_info(model, (96, 128))
    assert info.gflops_extrapolated == pytest.approx(info.gflops)
    striding = nn.Conv2d(3, 1, 5, stride=5)
    assert extrapolated_gflops(striding, (70, 70)) != pytest.approx(2 * 14 * 14 * 75 / 1e9)


@pytest.mark.reference
def test_the_originals_figure_is_the_extrapolated_one(reference: Path) -> None:
    """The original counts batch norms and activations too, which are a few per cent."""
    counted = json.loads((reference / "golden" / "model_complexity.json").read_text())["yolox_nano"]
    info = model_info(create_model("yolox-nano", num_classes=80), tuple(counted["official_input_hw"]))
    assert (info.parameters, info.gradients) == (counted["num_params"], counted["num_trainable"])
    assert info.gflops_extrapolated is not None
    assert 0.9 < info.gflops_extrapolated / counted["upstream_formula_gflops"] < 1
