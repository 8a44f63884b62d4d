"""The running average of a model: its law, integer buffers, state, and the originals' trajectories."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detection.training.ema import ModelEma
from tests.npz import read_npz


class Toy(nn.Module):
    """One of everything that a model may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)
        self.register_buffer("counter", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("table", torch.zeros(5))


def average_of(model: Any, **options: Any) -> ModelEma:
    return ModelEma(model, **({"decay": 0.9, "ramp_updates": 5.0} | options))


def moved(model: Toy) -> Toy:
    """Change every entry, as a training step would."""
    with torch.no_grad():
        for value in model.state_dict().values():
            value += 1
    return model


def test_the_law_by_hand() -> None:
    model = Toy()
    average = average_of(model)
    start, current = model.table.clone(), moved(model).table
    average.update(model)
    decay = 0.9 * (1 - math.exp(-1 / 5))
    assert average.decay_at(1) == pytest.approx(decay)
    torch.testing.assert_close(average.model.get_buffer("table"), decay * start + (1 - decay) * current)
    assert average.updates == 1


def test_the_average_is_in_eval_mode_learns_nothing_and_is_float32() -> None:
    model = Toy().half().train()
    average = average_of(model)
    average.update(model)
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    floating = [value for value in average.model.state_dict().values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float32}
    assert model.conv.weight.dtype == torch.float16


def test_integer_entries_are_copied_or_kept() -> None:
    model = Toy()
    copied, kept = average_of(model), average_of(model, integer_buffers="keep")
    moved(model)
    for average in (copied, kept):
        average.update(model)
    assert copied.model.get_buffer("counter").tolist() == [1, 1]
    assert copied.model.get_buffer("bn.num_batches_tracked") == 1
    assert kept.model.get_buffer("counter").tolist() == [0, 0]


def test_going_on_from_a_state_is_going_on() -> None:
    model = Toy()
    first = average_of(model)
    first.update(moved(model))
    second = average_of(Toy())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    moved(model)
    for average in (first, second):
        average.update(model)
    assert second.updates == 2
    for name, value in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # what torch 2.11's compiler imports
def test_wrappers_leave_no_trace_in_the_names() -> None:
    model = Toy()
    wrapped: Any = nn.DataParallel(model)
    average = average_of(wrapped)
    average.update(wrapped)
    assert average.model.state_dict().keys() == model.state_dict().keys()
    compiled: Any = torch.compile(model)
    average.update(compiled)
    assert average.updates == 2


def test_attributes_that_were_set_on_the_model_are_set_on_the_average() -> None:
    model: Any = Toy()
    average = average_of(model)
    model.names, model.process_group, model.loss_statistics = ("cat", "dog"), object(), {"boxes": 1}
    model.train()
    assert average.update_attributes(nn.DataParallel(model)) == ("names",)
    shown: Any = average.model
    assert shown.names == ("cat", "dog")
    assert not hasattr(shown, "process_group")
    assert not shown.training


def test_only_the_attributes_that_are_asked_for_are_set_on_the_average() -> None:
    model: Any = Toy()
    average = average_of(model)
    model.names, model.strides = ("cat",), (8, 16)
    assert average.update_attributes(model, include=("strides",)) == ("strides",)
    assert average.update_attributes(model, exclude=("strides",)) == ("names",)


def test_models_with_other_entries_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fc\.bias"):
        average_of(Toy()).update(nn.Conv2d(3, 4, 3))


def test_trajectories_have_the_originals_numbers(numbers: Path) -> None:
    case = read_npz(numbers / "ema_trajectories.npz")
    configurations = sorted({key.split("/")[0] for key in case if key.startswith("decay")})
    assert configurations
    names = [key.removeprefix("init/") for key in case if key.startswith("init/")]
    for configuration in configurations:
        decay, tau, updates = (float(part.lstrip("decaytu")) for part in configuration.split("_"))
        model: Any = Toy()
        model.load_state_dict({name: torch.from_numpy(np.array(case[f"init/{name}"])) for name in names})
        average = average_of(model, decay=decay, ramp_updates=tau, integer_buffers="keep")
        average.updates = int(updates)
        for step in range(len(case["model/table"])):
            model.load_state_dict(
                {name: torch.from_numpy(np.array(case[f"model/{name}"][step])) for name in names}
            )
            average.update(model)
            assert average.updates == case[f"{configuration}/updates"][step]
            np.testing.assert_allclose(
                average.decay_at(average.updates), case[f"{configuration}/decay"][step]
            )
            state = average.model.state_dict()
            for name in names:
                np.testing.assert_allclose(
                    state[name], case[f"{configuration}/{name}"][step], atol=1e-6, rtol=0
                )


@pytest.mark.reference
def test_nanodets_averager_is_the_same_law(reference: Path) -> None:
    case = read_npz(reference / "golden" / "ema_trajectories.npz")
    average = average_of(Toy(), decay=0.9998, ramp_updates=2000)
    weights = [1 - average.decay_at(step + 1) for step in range(60)]
    np.testing.assert_allclose(weights, case["nanodet_decay0.9998/new_value_weight"], rtol=1e-9)
