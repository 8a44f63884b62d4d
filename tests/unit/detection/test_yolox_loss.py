"""The loss of a batch: by hand, by its gradients, across ranks, and against the original's numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.autograd.profiler import profile

from detection.boxes import cxcywh_to_xyxy
from detection.families.yolox import YoloxAssignerConfig, YoloxLossConfig
from detection.losses.yolox import LossTerms, YoloxLoss
from detection.priors import Priors, grid_priors
from detection.targets import Targets
from tests.npz import read_npz

STRIDES = (8, 16, 32)
SIDE = 64
NUM_CLASSES = 3


def criterion(**options: Any) -> YoloxLoss:
    return YoloxLoss(YoloxAssignerConfig(), YoloxLossConfig(**options))


def raw_predictions(images: int, seed: int = 0) -> Tensor:
    count = len(grid_priors((SIDE, SIDE), STRIDES).corners_P2)
    return torch.randn(images, count, 5 + NUM_CLASSES, generator=torch.Generator().manual_seed(seed))


def targets_of(*num_boxes: int, seed: int = 0) -> Targets:
    random = torch.Generator().manual_seed(seed)
    boxes, labels = [], []
    for size in num_boxes:
        centre = torch.rand(size, 2, generator=random) * SIDE
        extent = torch.rand(size, 2, generator=random) * SIDE / 2 + 4
        boxes.append(cxcywh_to_xyxy(torch.cat((centre, extent), dim=1)))
        labels.append(torch.randint(NUM_CLASSES, (size,), generator=random))
    return Targets.from_lists(boxes, labels)


def loss_of(raw: Tensor, targets: Targets, *, tail: bool = False, **options: Any) -> LossTerms:
    priors = grid_priors((SIDE, SIDE), STRIDES, device=raw.device)
    return criterion(**options)(raw, priors, targets, tail=tail)


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def test_one_prior_and_one_box_by_hand() -> None:
    """A cell of 32 pixels predicts its own square; the true box is as large and lies half beside it."""
    priors = Priors(torch.tensor([[0.0, 0.0]]), torch.tensor([[32.0]]))
    raw = torch.zeros(1, 1, 7)
    raw[0, 0, :2] = 0.5
    raw[0, 0, 4:] = torch.tensor([0.2, 1.0, -1.0])
    targets = Targets.from_lists([torch.tensor([[16.0, 0.0, 48.0, 32.0]])], [torch.tensor([1])])
    terms, statistics = criterion(l1="always")(raw, priors, targets, tail=False)
    iou = 1 / 3

    def entropy(logit: float, target: float) -> float:
        return math.log1p(math.exp(logit)) - target * logit

    expected = {
        "box": 5 * (1 - iou**2),
        "objectness": entropy(0.2, 1),
        "class": entropy(1.0, 0) + entropy(-1.0, iou),
        "l1": 0.5,
    }
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)
    assert statistics["assigned"] == 1


def test_terms_are_sums_over_the_batch_by_the_number_of_foreground_priors() -> None:
    raw, targets = raw_predictions(3), targets_of(4, 0, 2)
    terms, statistics = loss_of(raw, targets, tail=True)
    foreground = round(float(statistics["assigned"]) * 6)
    singles = []
    for image in range(3):
        own = slice(image, image + 1)
        single = Targets(targets.boxes_BG4[own], targets.labels_BG[own], targets.valid_BG[own])
        parts, facts = loss_of(raw[own], single, tail=True)
        count = round(float(facts["assigned"]) * max(int(single.valid_BG.sum()), 1))
        singles.append({name: part * count for name, part in parts.items()})
    for name, term in terms.items():
        torch.testing.assert_close(term, torch.stack([each[name] for each in singles]).sum() / foreground)


@pytest.mark.parametrize(
    ("mode", "tail", "present"),
    [
        ("tail", False, False),
        ("tail", True, True),
        ("always", False, True),
        ("always", True, True),
        ("never", True, False),
    ],
)
def test_the_l1_term_comes_when_it_is_wanted(mode: str, tail: bool, present: bool) -> None:
    terms, _ = loss_of(raw_predictions(1), targets_of(3), tail=tail, l1=mode)
    assert (float(terms["l1"]) > 0) == present


def test_the_box_term_is_weighted() -> None:
    raw, targets = raw_predictions(1), targets_of(3)
    once, twice = loss_of(raw, targets, box_weight=1.0), loss_of(raw, targets, box_weight=2.0)
    torch.testing.assert_close(twice.terms["box"], 2 * once.terms["box"])
    assert loss_of(raw, targets, box="giou").terms["box"] != loss_of(raw, targets).terms["box"]


@pytest.mark.parametrize("num_boxes", [(0, 0), (3, 2)])
@pytest.mark.parametrize("kind", ["iou", "giou"])
def test_every_term_is_connected_and_every_gradient_finite(num_boxes: tuple[int, ...], kind: str) -> None:
    for name in ("box", "objectness", "class", "l1"):
        raw = raw_predictions(2).requires_grad_()
        terms, _ = loss_of(raw, targets_of(*num_boxes), tail=True, box=kind)
        terms[name].backward(retain_graph=True)
        assert raw.grad is not None
        assert raw.grad.isfinite().all()
        assert bool(raw.grad.any()) == (name == "objectness" or sum(num_boxes) > 0)


def test_without_boxes_only_objectness_has_a_value() -> None:
    terms, statistics = loss_of(raw_predictions(2), targets_of(0, 0), tail=True)
    assert [name for name, term in terms.items() if term != 0] == ["objectness"]
    assert statistics["assigned"] == 1


def test_background_that_overflows_does_not_reach_the_gradient() -> None:
    raw = raw_predictions(1)
    targets = Targets.from_lists([torch.tensor([[0.0, 0.0, 8.0, 8.0]])], [torch.tensor([0])])
    raw[0, 40:64, 2:4] = 200.0  # exp(200) is infinite in float32
    raw.requires_grad_()
    total(loss_of(raw, targets, tail=True).terms).backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


def test_padding_does_not_reach_the_loss() -> None:
    raw, targets = raw_predictions(2), targets_of(3, 1)
    padded = Targets(
        torch.nn.functional.pad(targets.boxes_BG4, (0, 0, 0, 5)),
        torch.nn.functional.pad(targets.labels_BG, (0, 5)),
        torch.nn.functional.pad(targets.valid_BG, (0, 5)),
    )
    first, second = loss_of(raw, targets, tail=True), loss_of(raw, padded, tail=True)
    assert all(torch.equal(first.terms[name], second.terms[name]) for name in first.terms)


def test_half_precision_is_only_for_the_network() -> None:
    raw, targets = raw_predictions(2).bfloat16(), targets_of(3, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss_of(raw, targets, tail=True).terms
    exact = loss_of(raw.float(), targets, tail=True).terms
    assert all(torch.equal(terms[name], exact[name]) for name in exact)


def test_it_never_waits_for_the_device() -> None:
    """On fake tensors, whatever must read a value or has a shape that depends on one raises."""
    raw, targets = raw_predictions(2), targets_of(3, 1)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(raw).requires_grad_()
        boxes, labels, valid = map(mode.from_tensor, (targets.boxes_BG4, targets.labels_BG, targets.valid_BG))
        terms, _ = loss_of(fake, Targets(boxes, labels, valid), tail=True)
        total(terms).backward()
        assert fake.grad is not None
        with pytest.raises(DataDependentOutputException):
            bool(total(terms) > 0)


def test_its_gradient_reads_no_value_either() -> None:
    """Some gradients read values only where tensors hold any, which fake tensors do not show."""
    raw = raw_predictions(2).requires_grad_()
    loss = total(loss_of(raw, targets_of(3, 1), tail=True, box="giou").terms)
    with profile() as recorded:
        loss.backward()
    names = {event.name for event in recorded.function_events or ()}
    assert any("Backward" in name for name in names)
    assert not names & {"aten::_local_scalar_dense", "aten::nonzero"}


def test_two_ranks_have_together_the_gradient_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, targets = raw_predictions(3), targets_of(5, 0, 1)
    whole = raw.clone().requires_grad_()
    total(loss_of(whole, targets).terms).backward()

    def foreground(own: slice) -> float:
        local = Targets(targets.boxes_BG4[own], targets.labels_BG[own], targets.valid_BG[own])
        facts = loss_of(raw[own], local).statistics
        return float(facts["assigned"]) * int(local.valid_BG.sum())

    ranks = slice(0, 1), slice(1, 3)
    everywhere = sum(foreground(own) for own in ranks)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda count: count.fill_(everywhere))
    gradient = torch.zeros_like(raw)
    for own in ranks:
        local = raw[own].clone().requires_grad_()
        part = Targets(targets.boxes_BG4[own], targets.labels_BG[own], targets.valid_BG[own])
        total(loss_of(local, part).terms).backward()
        assert local.grad is not None
        gradient[own] = local.grad / 2
    assert whole.grad is not None
    torch.testing.assert_close(gradient, whole.grad)


@pytest.mark.parametrize("rule", ["center15", "inbox25"])
@pytest.mark.parametrize("kind", ["iou", "giou"])
@pytest.mark.parametrize("l1", ["nol1", "l1"])
def test_it_has_the_originals_numbers(numbers: Path, rule: Any, kind: Any, l1: str) -> None:
    paths = sorted(numbers.glob("yolox_loss_*.npz"))
    assert paths
    for path in paths:
        case = read_npz(path)
        height, width = case["input_hw"].tolist()
        labels = torch.from_numpy(case["labels_cls_cxcywh"])
        valid = torch.arange(labels.shape[1]) < torch.from_numpy(case["num_gt"]).unsqueeze(1)
        targets = Targets(cxcywh_to_xyxy(labels[..., 1:]), labels[..., 0].long(), valid)
        raw = torch.from_numpy(case["raw"]).requires_grad_()
        loss = YoloxLoss(YoloxAssignerConfig(rule=rule), YoloxLossConfig(box=kind))
        terms, statistics = loss(raw, grid_priors((height, width), STRIDES), targets, tail=l1 == "l1")
        total(terms).backward()
        found = [total(terms), *terms.values(), statistics["assigned"]]
        expected, name = f"{rule}_{kind}_{l1}", path.name
        np.testing.assert_allclose(
            [float(each.detach()) for each in found], case[f"{expected}_components"], rtol=1e-4, err_msg=name
        )
        np.testing.assert_allclose(raw.grad, case[f"{expected}_grad"], rtol=1e-3, atol=1e-6, err_msg=name)
