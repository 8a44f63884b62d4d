"""The two ways to choose candidates and detections agree to the bit, whatever the scores are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detection.candidates import candidates_anywhere, candidates_on_cpu
from detection.postprocess import select_anywhere, select_detections, select_on_cpu

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


def same_candidates(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    threshold: float,
    *,
    one_label: bool,
    class_ids: list[int] | None,
) -> None:
    options = {"one_label_per_prior": one_label, "class_ids": class_ids}
    obvious = candidates_anywhere(boxes, scores, threshold, **options)
    quick = candidates_on_cpu(boxes.numpy(), scores.numpy(), threshold, **options)
    for one, other in zip(obvious, map(torch.from_numpy, quick), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


THRESHOLDS = st.sampled_from([0.0, 1e-30, 0.25, 0.3, 1.0, 2.0])
CLASS_IDS = st.none() | st.lists(st.integers(0, 4), max_size=3)


@given(case=cases(), threshold=THRESHOLDS, one_label=st.booleans(), class_ids=CLASS_IDS)
@settings(max_examples=150, deadline=None)
def test_both_ways_find_the_same_candidates(
    case: tuple[torch.Tensor, torch.Tensor],
    threshold: float,
    one_label: bool,
    class_ids: list[int] | None,
) -> None:
    same_candidates(*case, threshold, one_label=one_label, class_ids=class_ids)


@given(
    case=cases(),
    threshold=THRESHOLDS,
    one_label=st.booleans(),
    class_ids=CLASS_IDS,
    nms_iou=st.sampled_from([0.0, 0.5, 1.0]),
    max_detections=st.none() | st.integers(0, 3),
    agnostic=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_both_ways_select_the_same_detections(
    case: tuple[torch.Tensor, torch.Tensor],
    threshold: float,
    one_label: bool,
    class_ids: list[int] | None,
    nms_iou: float,
    max_detections: int | None,
    agnostic: bool,
) -> None:
    ways = [
        select(
            *case,
            score_threshold=threshold,
            nms_iou=nms_iou,
            max_detections=max_detections,
            one_label_per_prior=one_label,
            class_ids=class_ids,
            class_agnostic=agnostic,
        )
        for select in (select_anywhere, select_on_cpu)
    ]
    for name in ("boxes_N4", "scores_N", "labels_N"):
        one, other = (getattr(found, name) for found in ways)
        assert (one.dtype, one.tolist()) == (other.dtype, other.tolist())


@pytest.mark.parametrize("one_label", [True, False])
@pytest.mark.parametrize("nms_iou", [0.3, 0.65])
def test_both_ways_agree_on_a_whole_picture(one_label: bool, nms_iou: float) -> None:
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(2000, 2, generator=random) * 300
    boxes = torch.cat([corners, corners + torch.rand(2000, 2, generator=random) * 80], dim=1)
    scores = torch.rand(2000, 20, generator=random) ** 8
    scores[::7] = (scores[::7] * 50).round() / 50
    for threshold in (0.02, 0.5, 0.9):
        same_candidates(boxes, scores, threshold, one_label=one_label, class_ids=[1, 5, 19])
        one, other = (
            select(
                boxes,
                scores,
                score_threshold=threshold,
                nms_iou=nms_iou,
                max_detections=None,
                one_label_per_prior=one_label,
            )
            for select in (select_anywhere, select_on_cpu)
        )
        assert torch.equal(one.boxes_N4, other.boxes_N4)
        assert torch.equal(one.labels_N, other.labels_N)


def test_half_precision_goes_the_way_that_takes_any() -> None:
    boxes, scores = torch.rand(5, 4).half(), torch.tensor([[0.5], [0.25], [0.5], [0.75], [0.1]]).half()
    found = select_detections(
        boxes, scores, score_threshold=0.25, nms_iou=1.0, max_detections=None, one_label_per_prior=True
    )
    assert found.scores_N.tolist() == [0.75, 0.5, 0.5, 0.25]
    assert found.scores_N.dtype == torch.float32
