"""Dynamic soft label assignment: a slow and obvious oracle, cases by hand, the original's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detection.assigners.dynamic_soft_label import DynamicSoftLabel, inside_boxes, soft_class_cost
from detection.assigners.matching import BACKGROUND
from detection.boxes import cxcywh_to_xyxy
from detection.distances import decode_distances, expected_distances
from detection.families.nanodet_plus import NanoDetAssignerConfig
from detection.priors import Priors, grid_priors
from detection.targets import Targets
from tests.dynamic_soft_label_oracle import SlowDynamicSoftLabel
from tests.npz import read_npz

STRIDES = (8, 16, 32, 64)
Case = tuple[Tensor, Tensor, Priors, Targets]


def random_case(seed: int, num_boxes: Sequence[int], *, num_classes: int = 4, side: int = 96) -> Case:
    """Return predictions around their priors, and the boxes of a batch."""
    random = torch.Generator().manual_seed(seed)
    priors = grid_priors((side, side), STRIDES)
    batch, count = len(num_boxes), len(priors.corners_P2)
    distances = torch.rand(batch, count, 4, generator=random) * 4
    logits = torch.randn(batch, count, num_classes, generator=random) * 2
    boxes, labels = [], []
    for size in num_boxes:
        centre = torch.rand(size, 2, generator=random) * side
        extent = torch.rand(size, 2, generator=random) * side / 2 + 2
        boxes.append(cxcywh_to_xyxy(torch.cat((centre, extent), dim=1)))
        labels.append(torch.randint(num_classes, (size,), generator=random))
    return decode_distances(distances, priors), logits, priors, Targets.from_lists(boxes, labels)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_candidates": 2},
        {"iou_cost_weight": 0.3},
        {"soft_centre_prior": True},
        {"own_box_only": True},
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_slow_and_obvious_assignment_agrees(seed: int, changes: dict[str, Any]) -> None:
    config = NanoDetAssignerConfig(**changes)
    case = random_case(seed, (5, 0, 1, 9))
    found = DynamicSoftLabel(config).assign(*case)
    for image in range(4):
        boxes, ious = SlowDynamicSoftLabel(*case, config, image).assign()
        assert found.gt_index_BP[image].tolist() == boxes
        torch.testing.assert_close(found.iou_BP[image], torch.tensor(ious), rtol=1e-5, atol=1e-6)


def test_a_prior_on_the_border_of_a_box_is_outside() -> None:
    priors = grid_priors((32, 32), (8,))
    targets = Targets.from_lists([torch.tensor([[0.0, 0.0, 16.0, 16.0]])], [torch.tensor([0])])
    inside = inside_boxes(priors, targets)[0, 0]
    assert priors.corners_P2[inside].tolist() == [[8.0, 8.0]]


def test_padding_changes_nothing() -> None:
    boxes, logits, priors, targets = random_case(3, (2, 9))
    assigner = DynamicSoftLabel(NanoDetAssignerConfig())
    first = assigner.assign(boxes, logits, priors, targets).gt_index_BP
    garbage = targets.boxes_BG4.masked_fill(~targets.valid_BG.unsqueeze(2), 48.0)
    again = assigner.assign(boxes, logits, priors, replace(targets, boxes_BG4=garbage)).gt_index_BP
    assert torch.equal(first, again)
    alone = Targets(targets.boxes_BG4[:1, :2], targets.labels_BG[:1, :2], targets.valid_BG[:1, :2])
    assert torch.equal(assigner.assign(boxes[:1], logits[:1], priors, alone).gt_index_BP, first[:1])


def test_a_box_without_a_prior_inside_takes_those_of_others() -> None:
    """As in the original: any prior inside any box is a candidate for every box of the image."""
    priors = grid_priors((64, 64), (8,))
    thin, large = torch.tensor([17.0, 17.0, 19.0, 19.0]), torch.tensor([8.0, 8.0, 56.0, 56.0])
    targets = Targets.from_lists([torch.stack((thin, large))], [torch.tensor([0, 1])])
    boxes = decode_distances(torch.full((1, 64, 4), 0.2), priors)
    logits = torch.stack((torch.zeros(64), torch.linspace(3, -3, 64)), dim=1)[None]
    found = DynamicSoftLabel(NanoDetAssignerConfig()).assign(boxes, logits, priors, targets).gt_index_BP[0]
    assert sorted(found[found >= 0].tolist()) == [0, 1]
    own = DynamicSoftLabel(NanoDetAssignerConfig(own_box_only=True))
    assert set(own.assign(boxes, logits, priors, targets).gt_index_BP[0].tolist()) == {BACKGROUND, 1}


def test_class_costs_are_those_of_every_pair_one_by_one() -> None:
    _, logits, _, targets = random_case(6, (4, 2), num_classes=5)
    iou = torch.rand(2, 4, logits.shape[1], generator=torch.Generator().manual_seed(1))
    one_hot = torch.nn.functional.one_hot(targets.labels_BG, 5).float().unsqueeze(2) * iou.unsqueeze(3)
    pairs = logits.unsqueeze(1).expand(-1, 4, -1, -1)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(pairs, one_hot, reduction="none")
    expected = (entropy * (one_hot - pairs.sigmoid()) ** 2).sum(dim=3)
    torch.testing.assert_close(soft_class_cost(logits, iou, targets.labels_BG), expected)


def test_a_crowded_batch_needs_no_wait_for_the_device() -> None:
    """On the meta device, whatever must read a value or has a shape that depends on one raises."""
    boxes, logits, priors, targets = random_case(0, (120, 3), num_classes=80, side=416)
    on_meta = Priors(priors.corners_P2.to("meta"), priors.strides_P1.to("meta"))
    assigner = DynamicSoftLabel(NanoDetAssignerConfig(soft_centre_prior=True, own_box_only=True))
    found = assigner.assign(boxes.to("meta"), logits.to("meta"), on_meta, targets.to("meta"))
    assert found.gt_index_BP.shape == boxes.shape[:2]


def originals(folder: Path) -> list[Path]:
    return sorted(folder.glob("nanodet_dsl_*.npz"))


def agrees_with_the_original(path: Path) -> None:
    case = read_npz(path)
    prior = torch.tensor(case["center_priors"])
    priors, num_classes = Priors(prior[:, :2], prior[:, 2:3]), int(case["num_classes"])
    logits, bins = torch.tensor(case["pred"])[None].split((num_classes, 32), dim=2)
    boxes = decode_distances(expected_distances(bins.unflatten(2, (4, 8))), priors)
    torch.testing.assert_close(boxes[0], torch.tensor(case["decoded_xyxy"]), rtol=1e-4, atol=1e-4)
    targets = Targets.from_lists([torch.tensor(case["gt_xyxy"])], [torch.tensor(case["gt_labels"])])
    found = DynamicSoftLabel(NanoDetAssignerConfig()).assign(boxes, logits, priors, targets.with_a_row())
    assert (found.gt_index_BP[0] + 1).tolist() == case["gt_inds"].tolist()
    overlaps = torch.tensor(case["max_overlaps"]).clamp(min=0)
    torch.testing.assert_close(found.iou_BP[0], overlaps, rtol=1e-4, atol=1e-4)
    assert int(found.foreground_BP.sum()) == int(case["target_num_pos"])


def test_the_numbers_of_the_original(golden: Path) -> None:
    cases = originals(golden)
    assert cases
    for path in cases:
        agrees_with_the_original(path)


def test_all_numbers_of_the_original(reference: Path) -> None:
    cases = originals(reference / "golden")
    assert len(cases) == 9
    for path in cases:
        agrees_with_the_original(path)


def with_crowds(targets: Targets, *crowds: Sequence[float]) -> Targets:
    """Return targets whose first image has these crowd regions, the others none."""
    rows = torch.zeros(len(targets.boxes_BG4), max(len(crowds), 1), 4)
    rows[0, : len(crowds)] = torch.tensor(crowds)
    return replace(targets, crowds_BR4=rows)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9])
def test_candidates_whose_box_lies_in_a_crowd_are_neither_right_nor_wrong(threshold: float) -> None:
    boxes, logits, priors, targets = random_case(11, (6, 4))
    crowd = (10.0, 20.0, 60.0, 96.0)
    crowded = with_crowds(targets, crowd)
    config = NanoDetAssignerConfig(ignore_overlap=threshold)
    usual = DynamicSoftLabel(NanoDetAssignerConfig()).assign(boxes, logits, priors, targets)
    found = DynamicSoftLabel(config).assign(boxes, logits, priors, crowded)
    assert found.ignored_BP is not None
    candidates = inside_boxes(priors, targets).any(dim=1)
    for prior in range(len(priors.corners_P2)):
        x1, y1, x2, y2 = boxes[0, prior].tolist()
        width = max(min(x2, crowd[2]) - max(x1, crowd[0]), 0.0)
        height = max(min(y2, crowd[3]) - max(y1, crowd[1]), 0.0)
        area = (x2 - x1) * (y2 - y1)
        share = width * height / area if area else 0.0
        expected = bool(candidates[0, prior]) and share > threshold
        assert bool(found.ignored_BP[0, prior]) is expected
        index = BACKGROUND if expected else int(usual.gt_index_BP[0, prior])
        assert int(found.gt_index_BP[0, prior]) == index
    assert found.ignored_BP[0].any()
    assert not found.ignored_BP[1].any()
    assert torch.equal(found.gt_index_BP[1], usual.gt_index_BP[1])
    assert not found.iou_BP[found.ignored_BP].any()


def test_nothing_is_ignored_without_a_crowd_or_when_it_is_not_asked_for() -> None:
    boxes, logits, priors, targets = random_case(11, (6, 4))
    asked = DynamicSoftLabel(NanoDetAssignerConfig(ignore_overlap=0.5))
    assert asked.assign(boxes, logits, priors, targets).ignored_BP is None
    crowded = with_crowds(targets, (0.0, 0.0, 96.0, 96.0))
    assert DynamicSoftLabel(NanoDetAssignerConfig()).assign(boxes, logits, priors, crowded).ignored_BP is None
