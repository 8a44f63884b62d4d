"""The loss of NanoDet-Plus over a batch: the original's components and gradients, and its properties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from detection.families.nanodet_plus import NanoDetAssignerConfig, NanoDetLossConfig
from detection.losses.loss_terms import LossTerms
from detection.losses.nanodet import HeadOutput, NanoDetLoss
from detection.priors import grid_priors
from detection.targets import Targets
from tests.npz import read_npz

STRIDES = (8, 16, 32, 64)
NAMES = {"qfl": "loss_qfl", "giou": "loss_bbox", "dfl": "loss_dfl"}


def criterion(num_classes: int, **changes: float) -> NanoDetLoss:
    config = NanoDetLossConfig(**changes)  # type: ignore[arg-type]
    return NanoDetLoss(NanoDetAssignerConfig(), config, num_classes=num_classes)


def total(loss: LossTerms) -> Tensor:
    return torch.stack(list(loss.terms.values())).sum()


def agrees_with_the_original(path: Path) -> None:
    case = read_npz(path)
    height, width = (int(side) for side in case["input_hw"])
    priors = grid_priors((height, width), STRIDES)
    sizes = [int(size) for size in case["num_gt"]]
    boxes = torch.tensor(case["gt_xyxy_concat"]).split(sizes)
    labels = torch.tensor(case["gt_labels_concat"]).split(sizes)
    targets = Targets.from_lists(boxes, labels)
    loss = criterion(int(case["num_classes"]))
    for prefix, names in (("noaux_", ("",)), ("withaux_", ("", "aux_"))):
        raw = [torch.tensor(case[f"{name}preds"]).requires_grad_() for name in names]
        found = loss(tuple(raw), priors, targets)
        for name in names:
            for own, original in NAMES.items():
                expected = float(case[f"{prefix}{name}{original}"])
                assert float(found.terms[name + own].detach()) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        total(found).backward()
        for name, each in zip(names, raw, strict=True):
            grad = case["noaux_grad_preds" if prefix == "noaux_" else f"aux_grad_{name}preds"]
            torch.testing.assert_close(each.grad, torch.tensor(grad), rtol=1e-3, atol=1e-6)


def test_the_numbers_of_the_original(golden: Path) -> None:
    cases = sorted(golden.glob("nanodet_loss_*.npz"))
    assert cases
    for path in cases:
        agrees_with_the_original(path)


def test_all_numbers_of_the_original(reference: Path) -> None:
    cases = sorted((reference / "golden").glob("nanodet_loss_*.npz"))
    assert len(cases) == 3
    for path in cases:
        agrees_with_the_original(path)


def small_case(seed: int = 0) -> tuple[Tensor, Tensor, Targets]:
    """Return raw predictions of both heads for two images of 64 pixels, and their boxes."""
    random = torch.Generator().manual_seed(seed)
    count = len(grid_priors((64, 64), STRIDES).corners_P2)
    raw = torch.randn(2, 2, count, 3 + 32, generator=random)
    boxes = [torch.tensor([[5.0, 5, 40, 44], [20.0, 10, 60, 60]]), torch.tensor([[2.0, 3, 30, 30]])]
    return raw[0], raw[1], Targets.from_lists(boxes, [torch.tensor([0, 2]), torch.tensor([1])])


def test_weights_scale_their_terms() -> None:
    raw, auxiliary, targets = small_case()
    priors = grid_priors((64, 64), STRIDES)
    plain = criterion(3)((raw, auxiliary), priors, targets).terms
    weighted = criterion(3, qfl_weight=3, giou_weight=1, dfl_weight=1)(
        (raw, auxiliary), priors, targets
    ).terms
    for prefix in ("", "aux_"):
        factors = {"qfl": 3, "giou": 0.5, "dfl": 4}
        for name, factor in factors.items():
            torch.testing.assert_close(weighted[prefix + name], plain[prefix + name] * factor)


def test_the_auxiliary_head_assigns_for_both() -> None:
    raw, auxiliary, targets = small_case()
    priors = grid_priors((64, 64), STRIDES)
    alone = criterion(3)((raw,), priors, targets).terms
    guided = criterion(3)((raw, auxiliary), priors, targets).terms
    by_itself = criterion(3)((auxiliary,), priors, targets).terms
    assert set(guided) == {"qfl", "giou", "dfl", "aux_qfl", "aux_giou", "aux_dfl"}
    torch.testing.assert_close(guided["aux_qfl"], by_itself["qfl"])
    assert not torch.equal(alone["qfl"], guided["qfl"])


def test_a_batch_without_boxes_still_reaches_every_output() -> None:
    raw, auxiliary, _ = small_case()
    raw.requires_grad_()
    auxiliary.requires_grad_()
    nothing = Targets.from_lists([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)
    found = criterion(3)((raw, auxiliary), grid_priors((64, 64), STRIDES), nothing)
    assert float(found.terms["giou"].detach()) == float(found.terms["aux_dfl"].detach()) == 0.0
    total(found).backward()
    for each in (raw, auxiliary):
        assert each.grad is not None
        assert each.grad[..., :3].abs().min() > 0
        assert not each.grad[..., 3:].any()


def test_no_step_waits_for_the_device() -> None:
    """A fake tensor has no values: whatever must read one, or has a shape that depends on one, raises."""
    raw, auxiliary, targets = small_case()
    priors = grid_priors((64, 64), STRIDES)
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = criterion(3)((raw, auxiliary), priors, targets)
    assert all(isinstance(term, FakeTensor) and term.shape == () for term in found.terms.values())


def test_ignored_priors_teach_no_class() -> None:
    raw, _, targets = small_case()
    raw.requires_grad_()
    priors = grid_priors((64, 64), STRIDES)
    crowds = torch.tensor([[[0.0, 0.0, 64.0, 64.0]], [[0.0, 0.0, 0.0, 0.0]]])
    ignoring = NanoDetLoss(NanoDetAssignerConfig(ignore_overlap=0.1), NanoDetLossConfig(), num_classes=3)
    crowded = replace(targets, crowds_BR4=crowds)
    total(ignoring((raw,), priors, crowded)).backward()
    gradient = raw.grad
    assert gradient is not None
    assignment = ignoring.assigner.assign(
        HeadOutput.of(raw.detach(), 3, priors).boxes_BP4, raw.detach()[..., :3], priors, crowded
    )
    assert assignment.ignored_BP is not None
    assert assignment.ignored_BP[0].any()
    assert not gradient[assignment.ignored_BP].any()
    assert gradient[~assignment.ignored_BP][:, :3].abs().min() > 0
