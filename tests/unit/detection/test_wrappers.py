"""What is put around a model, and the attributes that are carried from one to another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detection.training.wrappers import copy_attributes, is_parallel, unwrapped

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning"  # what torch 2.11's compiler imports
)


class Holder:
    """An object with attributes of every kind."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def test_only_wrappers_for_several_devices_or_processes_are_parallel() -> None:
    model = nn.Linear(2, 2)
    wrapped = nn.DataParallel(model)
    compiled: Any = torch.compile(wrapped)
    alone: Any = torch.compile(model)
    assert [is_parallel(each) for each in (model, wrapped, compiled, alone)] == [False, True, True, False]


def test_a_model_with_a_part_called_module_is_no_wrapper() -> None:
    model = nn.Sequential()
    model.add_module("module", nn.Linear(2, 2))
    assert not is_parallel(model)
    assert unwrapped(model) is model


def test_wrappers_are_taken_off_in_any_order() -> None:
    model = nn.Linear(2, 2)
    compiled: Any = torch.compile(model)
    outermost: Any = torch.compile(nn.DataParallel(compiled))
    for wrapped in (model, nn.DataParallel(model), compiled, nn.DataParallel(compiled), outermost):
        assert unwrapped(wrapped) is model


def test_attributes_are_copied_but_those_that_are_private() -> None:
    target, source = Holder(kept=0), Holder(names=("cat",), stride=8, _secret=1)
    assert copy_attributes(target, source) == ("names", "stride")
    assert vars(target) == {"kept": 0, "names": ("cat",), "stride": 8}


@pytest.mark.parametrize(
    ("include", "exclude", "copied"),
    [
        ((), ("b",), ("a", "c")),
        (("a", "b", "absent"), (), ("a", "b")),
        (("a", "b"), ("b",), ("a",)),
        (("_d",), (), ()),
    ],
)
def test_names_are_included_and_excluded(
    include: tuple[str, ...], exclude: tuple[str, ...], copied: tuple[str, ...]
) -> None:
    target = Holder()
    source = Holder(a=1, b=2, c=3, _d=4)
    assert copy_attributes(target, source, include=include, exclude=exclude) == copied
    assert tuple(vars(target)) == copied


def test_the_weights_of_a_module_are_no_attributes() -> None:
    source, target = nn.Linear(2, 2), nn.Linear(2, 2)
    before = target.weight.clone()
    copy_attributes(target, source)
    assert torch.equal(target.weight, before)
