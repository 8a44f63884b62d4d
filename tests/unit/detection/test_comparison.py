"""How far the weights of two models are apart."""

from __future__ import annotations

import pytest
import torch

from detection.models.comparison import compare_weights, tensors_sha256


def state(**values: list[float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_the_same_weights_are_identical() -> None:
    told = compare_weights(state(a=[1, 2.5], b=[3]), state(a=[1, 2.5], b=[3]))
    assert told.identical
    assert (told.tensors, told.differing, told.worst_tensor) == (2, 0, None)
    assert (told.max_abs_difference, told.max_relative_difference) == (0.0, 0.0)
    assert told.is_within(0.0)


def test_differences_by_hand() -> None:
    told = compare_weights(state(a=[100.0, 0.0], b=[0.5, -0.25]), state(a=[100.5, 0.0], b=[0.5, -0.24]))
    assert (told.tensors, told.differing, told.worst_tensor) == (2, 2, "b")
    assert told.max_abs_difference == pytest.approx(0.5)
    assert told.max_relative_difference == pytest.approx(0.02)
    assert told.is_within(0.03)
    assert not told.is_within(0.01)


def test_one_bit_is_a_difference_however_small() -> None:
    told = compare_weights(state(a=[0.0]), state(a=[-0.0]))
    assert not told.identical
    assert told.max_abs_difference == 0.0
    assert told.is_within(0.0)


def test_what_has_no_counterpart_is_named_and_never_within_tolerance() -> None:
    first = {**state(a=[1], b=[1, 2], d=[1]), "c": torch.tensor([1.0])}
    told = compare_weights(first, state(a=[1], b=[1, 2, 3], c=[1], e=[1]))
    assert told.unmatched == ("b", "c", "d", "e")
    assert told.tensors == 1
    assert not told.identical
    assert not told.is_within(1e9)


def test_a_number_that_is_not_finite_is_infinitely_far_away() -> None:
    told = compare_weights(state(a=[float("nan"), 1]), state(a=[1.0, 1]))
    assert told.max_relative_difference == float("inf")
    assert not told.is_within(1.0)


def test_integers_and_scalars_are_compared_too() -> None:
    first, second = ({"n": torch.tensor(number)} for number in (3, 4))
    told = compare_weights(first, second)
    assert (told.max_abs_difference, told.max_relative_difference) == (1.0, 0.25)


def test_the_hash_is_that_of_names_types_shapes_and_bits() -> None:
    base = state(a=[1, 2], b=[3])
    same = dict(reversed(base.items()))
    assert tensors_sha256(base) == tensors_sha256(same)
    others = [
        state(a=[1, 2], c=[3]),
        state(a=[2, 1], b=[3]),
        {**base, "a": base["a"].reshape(2, 1)},
        {**base, "a": base["a"].half()},
    ]
    assert len({tensors_sha256(each) for each in (base, *others)}) == 5
