"""Finding modules by their class."""

from __future__ import annotations

import logging

import pytest
from torch import nn

from detection.analysis.modules import find_modules, module_class
from detection.errors import UnknownNameError


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1)),
        nn.Conv1d(4, 4, 1),
    )


def test_convolutions_are_found_in_module_order() -> None:
    found = find_modules(network())
    assert [(each.index, each.name) for each in found] == [(1, "0"), (5, "2.1")]
    assert all(isinstance(each.module, nn.Conv2d) for each in found)


def test_any_class_can_be_looked_for_and_the_network_itself_is_the_first() -> None:
    model = network()
    assert [(each.index, each.name) for each in find_modules(model, nn.Sequential)] == [(0, ""), (3, "2")]
    assert find_modules(model, nn.Linear) == ()


def test_the_index_is_that_among_all_modules() -> None:
    model = network()
    everything = list(model.modules())
    assert all(everything[each.index] is each.module for each in find_modules(model, nn.Module))


def test_a_class_is_known_by_its_name() -> None:
    assert module_class(network(), "BatchNorm2d") is nn.BatchNorm2d
    with pytest.raises(UnknownNameError, match=r"'Conv3d'; there are: BatchNorm2d, Conv1d, Conv2d"):
        module_class(network(), "Conv3d")


def test_the_log_says_how_many_there_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        find_modules(network())
    assert caplog.messages == ["2 modules of class Conv2d found"]
