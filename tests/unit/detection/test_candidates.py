"""The two ways to choose candidates agree to the bit, whatever the scores are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detection.candidates import candidates_anywhere, candidates_on_cpu, find_candidates

FEW_SCORES = [0.0, -0.0, 0.25, 0.5, 1.0, np.nan, np.inf, -np.inf, 1e-30]
"""So few that many are equal."""
COORDINATES = [0.0, 1.0, 37.5, np.nan, np.inf, -np.inf]


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    num_priors, num_classes = draw(st.integers(0, 9)), draw(st.integers(1, 4))
    scores = draw(
        arrays.arrays(
            np.float32, (num_priors, num_classes), elements=st.sampled_from(FEW_SCORES), fill=st.nothing()
        )
    )
    boxes = draw(arrays.arrays(np.float32, (num_priors, 4), elements=st.sampled_from(COORDINATES)))
    return torch.from_numpy(boxes), torch.from_numpy(scores)


@given(
    case=cases(),
    threshold=st.sampled_from([0.0, 1e-30, 0.25, 0.3, 1.0, 2.0]),
    one_label=st.booleans(),
    class_ids=st.none() | st.lists(st.integers(0, 4), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_both_ways_agree(
    case: tuple[torch.Tensor, torch.Tensor],
    threshold: float,
    one_label: bool,
    class_ids: list[int] | None,
) -> None:
    boxes, scores = case
    ways = [
        find(boxes, scores, threshold, one_label_per_prior=one_label, class_ids=class_ids)
        for find in (candidates_anywhere, candidates_on_cpu)
    ]
    for obvious, quick in zip(*ways, strict=True):
        assert obvious.dtype == quick.dtype
        assert torch.equal(obvious, quick)


@pytest.mark.parametrize("one_label", [True, False])
def test_both_ways_agree_on_a_whole_picture(one_label: bool) -> None:
    random = torch.Generator().manual_seed(0)
    boxes = torch.rand(3000, 4, generator=random)
    scores = torch.rand(3000, 80, generator=random) ** 8
    scores[::7] = (scores[::7] * 50).round() / 50
    for threshold in (0.0, 0.001, 0.5):
        ways = [
            find(boxes, scores, threshold, one_label_per_prior=one_label, class_ids=[1, 5, 79])
            for find in (candidates_anywhere, candidates_on_cpu)
        ]
        assert all(torch.equal(*both) for both in zip(*ways, strict=True))


def test_half_precision_goes_the_way_that_takes_any() -> None:
    boxes, scores = torch.rand(5, 4).half(), torch.tensor([[0.5], [0.25], [0.5], [0.75], [0.1]]).half()
    prior, _, score = find_candidates(boxes, scores, 0.25, one_label_per_prior=True, class_ids=None)
    assert prior.tolist() == [3, 0, 2, 1]
    assert score.dtype == torch.float32
