"""From boxes and scores to detections: by hand, against a plain loop, and against the original's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.boxes import cxcywh_to_xyxy, pairwise_iou
from detection.candidates import MOST_CANDIDATES
from detection.detections import Detections
from detection.postprocess import select_detections
from tests.npz import read_npz

BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 8]])
SCORES = torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.2, 0.7], [0.1, 0.6]])


def select(boxes: Tensor = BOXES, scores: Tensor = SCORES, **changes: Any) -> Detections:
    options: dict[str, Any] = {
        "score_threshold": 0.25,
        "nms_iou": 0.5,
        "max_detections": None,
        "one_label_per_prior": True,
    }
    return select_detections(boxes, scores, **(options | changes))


def as_lists(detections: Detections) -> list[tuple[list[float], float, int]]:
    rows = zip(detections.boxes_N4, detections.scores_N, detections.labels_N, strict=True)
    return [(box.tolist(), round(float(score), 4), int(label)) for box, score, label in rows]


def test_the_best_of_overlapping_boxes_of_one_class_stays() -> None:
    assert as_lists(select()) == [
        ([0, 0, 10, 10], 0.9, 0),
        ([20, 20, 30, 30], 0.7, 1),
        ([0, 0, 10, 8], 0.6, 1),
    ]


def test_class_agnostic_suppression_ignores_the_class() -> None:
    assert [row[1] for row in as_lists(select(class_agnostic=True))] == [0.9, 0.7]


def test_every_class_above_the_threshold_when_a_prior_may_have_several() -> None:
    found = as_lists(select(one_label_per_prior=False, nms_iou=1.0))
    assert [(score, label) for _, score, label in found] == [
        (0.9, 0),
        (0.8, 0),
        (0.7, 1),
        (0.6, 1),
        (0.3, 1),
    ]


def test_thresholds_keep_what_is_equal() -> None:
    assert [row[1] for row in as_lists(select(score_threshold=0.7))] == [0.9, 0.7]
    halves = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]])
    assert len(select(halves, torch.tensor([[0.9], [0.8]]), nms_iou=0.5)) == 2
    assert len(select(halves, torch.tensor([[0.9], [0.8]]), nms_iou=0.49)) == 1


def test_only_the_wanted_classes_are_found() -> None:
    assert [row[2] for row in as_lists(select(class_ids=[1]))] == [1, 1]
    assert len(select(class_ids=[])) == 0


def test_the_cap_keeps_the_best() -> None:
    assert [row[1] for row in as_lists(select(max_detections=2))] == [0.9, 0.7]
    assert len(select(max_detections=0)) == 0


def test_equal_scores_keep_the_order_of_the_priors() -> None:
    apart = torch.tensor([[40.0 * i, 0.0, 40.0 * i + 10, 10.0] for i in range(300)])
    found = select(apart, torch.full((300, 3), 0.5))
    assert torch.equal(found.boxes_N4, apart)
    assert found.labels_N.tolist() == [0] * 300


def test_numbers_that_are_not_finite_are_never_detections() -> None:
    boxes, scores = BOXES.clone(), SCORES.clone()
    boxes[0, 2], boxes[3, 0], scores[2] = torch.inf, torch.nan, torch.nan
    assert as_lists(select(boxes, scores)) == [([0, 0, 10, 9], 0.8, 0)]


def test_classes_never_meet_wherever_their_boxes_lie() -> None:
    """Moved apart by the largest coordinate, 100, the second box would come to lie on the first."""
    boxes = torch.tensor([[80.0, 80, 100, 100], [-21, -21, -1, -1]])
    assert len(select(boxes, torch.tensor([[0.9, 0.0], [0.0, 0.8]]))) == 2


def test_an_immense_box_does_not_hide_how_others_overlap() -> None:
    boxes = torch.tensor([[-1e30, -1e30, 1e30, 1e30], [0, 0, 10, 10], [0, 0, 10, 9]])
    found = select(boxes, torch.tensor([[0.0, 0.9], [0.0, 0.8], [0.0, 0.7]]))
    assert [round(score, 4) for score in found.scores_N.tolist()] == [0.9, 0.8]
    assert torch.equal(found.boxes_N4, boxes[:2])


def test_nothing_gives_nothing() -> None:
    for found in (select(score_threshold=1.0), select(torch.zeros(0, 4), torch.zeros(0, 2))):
        assert found.boxes_N4.shape == (0, 4)
        assert found.scores_N.dtype == torch.float32
        assert found.labels_N.dtype == torch.int64


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float) -> list[tuple[float, int, int]]:
    """Return (score, prior, class) of what a loop over all pairs keeps."""
    best, labels = scores.max(dim=1)
    order = sorted(range(len(boxes)), key=lambda prior: (-float(best[prior]), prior))
    kept: list[int] = []
    for prior in order:
        same = [other for other in kept if labels[other] == labels[prior]]
        if all(float(pairwise_iou(boxes[[prior]], boxes[[other]])) <= threshold for other in same):
            kept.append(prior)
    return [(float(best[prior]), prior, int(labels[prior])) for prior in kept]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_a_plain_loop_keeps(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(120, 2, generator=random) * 60
    boxes = torch.cat((corners, corners + 10 + torch.rand(120, 2, generator=random) * 20), dim=1)
    scores = torch.rand(120, 3, generator=random)
    found = select(boxes, scores, score_threshold=0.0)
    expected = plain_nms(boxes, scores, 0.5)
    assert found.scores_N.tolist() == [score for score, _, _ in expected]
    assert found.labels_N.tolist() == [label for _, _, label in expected]
    assert torch.equal(found.boxes_N4, boxes[[prior for _, prior, _ in expected]])


def test_it_has_the_originals_numbers(numbers: Path) -> None:
    case = read_npz(numbers / "yolox_postprocess.npz")
    outputs = [name for name in case if "_out" in name]
    assert outputs
    for name in outputs:
        number, image = name.split("_out")
        confidence, nms_iou, agnostic = case[f"{number}_cfg_conf_nms_agnostic"]
        predicted = torch.from_numpy(case[f"{number}_pred"])[int(image)]
        found = select(
            cxcywh_to_xyxy(predicted[:, :4]),
            predicted[:, 4:5] * predicted[:, 5:],
            score_threshold=float(confidence),
            nms_iou=float(nms_iou),
            class_agnostic=bool(agnostic),
        )
        rows = case[name]
        np.testing.assert_array_equal(found.labels_N, rows[:, 6])
        np.testing.assert_allclose(found.boxes_N4, rows[:, :4], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.scores_N, rows[:, 4] * rows[:, 5], rtol=1e-5, atol=1e-5)


def chosen_one_by_one(
    boxes: Tensor, scores: Tensor, *, threshold: float, best_only: bool, classes: set[int] | None
) -> list[tuple[int, int, float]]:
    """Return prior, class and score of all candidates, the best first: a loop over everything."""
    found = [
        (prior, label, float(scores[prior, label]))
        for prior in range(len(scores))
        for label in ([int(scores[prior].argmax())] if best_only else range(scores.shape[1]))
        if scores[prior, label] >= threshold and bool(boxes[prior].isfinite().all())
    ]
    found = [each for each in found if classes is None or each[1] in classes]
    return sorted(found, key=lambda each: -each[2])


@pytest.mark.parametrize("classes", [None, {0, 2}])
@pytest.mark.parametrize("best_only", [True, False])
def test_only_so_many_candidates_are_looked_at_and_those_are_the_best(
    monkeypatch: pytest.MonkeyPatch, best_only: bool, classes: set[int] | None
) -> None:
    random = torch.Generator().manual_seed(3)
    boxes = torch.rand(60, 4, generator=random) + torch.tensor([0.0, 0, 100, 100])
    boxes[7, 2] = torch.inf
    scores = (torch.rand(60, 3, generator=random) * 20).round() / 20  # many are equal
    expected = chosen_one_by_one(boxes, scores, threshold=0.1, best_only=best_only, classes=classes)
    for most in (len(expected) + 1, 20):
        monkeypatch.setattr("detection.candidates.MOST_CANDIDATES", most)
        found = select(
            boxes,
            scores,
            score_threshold=0.1,
            nms_iou=1.0,
            one_label_per_prior=best_only,
            class_ids=classes,
        )
        rows = zip(found.boxes_N4.tolist(), found.labels_N.tolist(), found.scores_N.tolist(), strict=True)
        wanted = [(boxes[prior].tolist(), label, score) for prior, label, score in expected[:most]]
        assert list(rows) == wanted


def test_the_bound_on_candidates_lies_beyond_three_looks_of_a_large_input() -> None:
    assert MOST_CANDIDATES > 640 * 640 * 3 // 46, "priors, each with its best class"
