"""The NanoDet-Plus networks: names, shapes, counts, and what the original's m computes."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.analysis.complexity import count_flops
from detection.architectures import ARCHITECTURES
from detection.families.nanodet_plus import NanoDetAssignerConfig, NanoDetLossConfig
from detection.families.yolox import YoloxLossConfig
from detection.models import MODELS, create_model, create_served_model
from detection.models.detector import Detector, TrainingMoment
from detection.models.nanodet_plus import SIZES, NanoDetPlus
from detection.postprocess import select_detections
from detection.targets import Targets
from tests.npz import read_npz

TERMS = {"qfl": "loss_qfl", "giou": "loss_bbox", "dfl": "loss_dfl"}
TEACHING = TrainingMoment(epoch=0, tail=False)
DETACHED = TrainingMoment(epoch=10, tail=False)


def nanodet(name: str = "nanodet-plus-m", num_classes: int = 2, **options: Any) -> NanoDetPlus:
    torch.manual_seed(0)
    model = create_model(name, num_classes=num_classes, **options)
    assert isinstance(model, NanoDetPlus)
    return model


def pictures(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def targets() -> Targets:
    boxes = [torch.tensor([[4.0, 4, 40, 50], [50, 10, 90, 60]]), torch.tensor([[10.0, 10, 30, 30]])]
    return Targets.from_lists(boxes, [torch.tensor([0, 1]), torch.tensor([1])])


def test_every_size_has_an_architecture_and_a_model() -> None:
    of_the_family = [name for name in ARCHITECTURES if ARCHITECTURES[name].family == "nanodet-plus"]
    assert list(SIZES) == of_the_family
    assert set(SIZES) <= set(MODELS.names())


@pytest.mark.parametrize("name", SIZES)
def test_names_shapes_and_counts_are_the_originals(golden: Path, name: str) -> None:
    expected = json.loads((golden / "nanodet_keys.json").read_text())[name]
    with torch.device("meta"):
        model, served = create_model(name, num_classes=80), create_served_model(name, num_classes=80)
        folded = create_served_model(name, num_classes=80)
        folded.fuse()
    state = model.state_dict()
    lines = "".join(f"{key} {list(value.shape)}\n" for key, value in sorted(state.items()))
    assert len(state) == expected["entries"]
    assert hashlib.sha256(lines.encode()).hexdigest() == expected["sha256"]
    counts = [sum(each.numel() for each in network.parameters()) for network in (model, served, folded)]
    assert counts == [expected[key] for key in ("parameters", "parameters_served", "parameters_folded")]
    assert counts[1] == ARCHITECTURES[name].published.parameters


@pytest.mark.reference
@pytest.mark.parametrize("name", SIZES)
def test_state_dicts_have_the_originals_entries(reference: Path, name: str) -> None:
    path = reference / "golden" / f"keys_{name.replace('-', '_')}_320.json"
    expected = json.loads(path.read_text())["state_dict"]
    with torch.device("meta"):
        state = create_model(name, num_classes=80).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == {
        key: entry["shape"] for key, entry in expected.items()
    }


@pytest.mark.parametrize("name", SIZES)
def test_the_network_costs_what_was_published(golden: Path, name: str) -> None:
    """The original counts more than convolutions, which makes some 6 %."""
    expected = json.loads((golden / "nanodet_keys.json").read_text())[name]["gflops_2mac"]
    architecture = ARCHITECTURES[name]
    for published in (architecture.published, *architecture.published_elsewhere):
        side = published.input_size
        with torch.device("meta"):
            flops = count_flops(create_served_model(name, num_classes=80), (side, side))
        of_convolutions, of_all = expected[str(side)]
        assert flops / 1e9 == pytest.approx(of_convolutions, rel=0.005)
        assert published.gflops == pytest.approx(of_all, abs=0.005)


def test_an_untrained_network_expects_background() -> None:
    model = nanodet()
    for convolution in (*model.head.gfl_cls, model.aux_head.gfl_cls):
        torch.testing.assert_close(convolution.bias.sigmoid(), torch.full_like(convolution.bias, 0.01))
    assert not model.aux_head.gfl_reg.bias.any()


def test_the_configuration_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match="NanoDetLossConfig is needed, not a YoloxLossConfig"):
        nanodet(loss=YoloxLossConfig())
    with pytest.raises(ValueError, match="YoloxAssignerConfig is needed, not a NanoDetAssignerConfig"):
        create_model("yolox-nano", num_classes=2, assigner=NanoDetAssignerConfig())


def test_boxes_end_where_the_input_ends() -> None:
    model = nanodet().eval()
    for convolution in model.head.gfl_cls:
        convolution.bias.data[2 + 7 :: 8] = 20.0  # all four sides are surely seven cells away
    boxes, scores = model.predict(pictures())
    assert boxes.amin() == 0.0
    assert boxes.amax(dim=(0, 1))[2:].tolist() == [96.0, 64.0]
    # The first cell of stride 8 is cut at the corner and ends seven cells away.
    torch.testing.assert_close(boxes[0, 0], torch.tensor([0.0, 0.0, 56.0, 56.0]), rtol=1e-4, atol=1e-2)
    assert scores.shape[2] == 2


def gradients(model: NanoDetPlus, moment: TrainingMoment, prefix: str) -> dict[str, Tensor]:
    """Return the gradients that the terms whose name starts with `prefix` alone give."""
    model.zero_grad(set_to_none=True)
    terms = model.loss(pictures(), targets(), moment)
    torch.stack([term for name, term in terms.items() if name.startswith(prefix)]).sum().backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def test_the_auxiliary_branch_teaches_the_others_until_it_is_detached() -> None:
    model = nanodet()
    early, late = (gradients(model, moment, "aux_") for moment in (TEACHING, DETACHED))
    assert {name.split(".")[0] for name in early} == {"backbone", "fpn", "aux_fpn", "aux_head"}
    assert {name.split(".")[0] for name in late} == {"aux_fpn", "aux_head"}


def test_the_epoch_of_detaching_can_be_chosen() -> None:
    model = nanodet(loss=NanoDetLossConfig(detach_epoch=0))
    assert {name.split(".")[0] for name in gradients(model, TEACHING, "aux_")} == {"aux_fpn", "aux_head"}


def test_the_main_head_may_assign_for_itself_after_an_epoch() -> None:
    model = nanodet(assigner=NanoDetAssignerConfig(self_assign_epoch=3))
    before, after = (TrainingMoment(epoch=epoch, tail=False) for epoch in (2, 3))
    assert len(model.training_outputs(pictures(), before)) == 2
    assert set(model.loss(pictures(), targets(), before)) == {*TERMS, *(f"aux_{name}" for name in TERMS)}
    assert len(model.training_outputs(pictures(), after)) == 1
    assert set(model.loss(pictures(), targets(), after)) == set(TERMS)


def test_the_auxiliary_neck_begins_as_the_neck() -> None:
    model = nanodet()
    neck = copy.deepcopy(model.fpn.state_dict())
    assert all(torch.equal(value, neck[name]) for name, value in model.aux_fpn.state_dict().items())
    for parameter in model.fpn.parameters():
        torch.nn.init.normal_(parameter)
    names = [name for name in model.state_dict() if name.startswith("aux_")]
    assert model.begin_from(names[1:]).keys() == {"the auxiliary head starts at random"}
    assert not all(torch.equal(value, neck[name]) for name, value in model.fpn.state_dict().items())
    assert all(torch.equal(value, neck[name]) for name, value in model.aux_fpn.state_dict().items())
    done = model.begin_from(names)
    assert sum(map(len, done.values())) == len(names)
    assert all(
        torch.equal(value, model.fpn.state_dict()[name]) for name, value in model.aux_fpn.state_dict().items()
    )


def original(reference: Path) -> NanoDetPlus:
    """Return the network whose outputs were written down, with its weights."""
    weights = read_npz(reference / "golden" / "model_nanodet_plus_m_weights_fp16.npz")
    state = {key.removeprefix("sd/"): torch.from_numpy(weights[key]) for key in weights}
    model = nanodet(num_classes=80)
    model.load_state_dict(
        {key: each.float() if each.is_floating_point() else each for key, each in state.items()}
    )
    return model


@pytest.mark.reference
def test_outputs_have_the_originals_numbers(reference: Path) -> None:
    case = read_npz(reference / "golden" / "model_nanodet_plus_m_io.npz")
    model, images = original(reference).eval(), torch.from_numpy(case["input_norm"])
    with torch.no_grad():
        raw, auxiliary = model.training_outputs(images, TEACHING)
        boxes, scores = model.predict(images)
        model.fuse()
        fused = model(images)
    np.testing.assert_allclose(raw, case["raw"], atol=5e-3)
    np.testing.assert_allclose(auxiliary, case["aux_raw"], atol=5e-3)
    np.testing.assert_allclose(fused, raw, rtol=1e-3, atol=5e-3)
    np.testing.assert_allclose(boxes, case["decoded_xyxy_clamped"], atol=0.05)
    np.testing.assert_allclose(scores, raw[..., :80].sigmoid(), atol=1e-6)


@pytest.mark.reference
def test_detections_have_the_originals_numbers(reference: Path) -> None:
    case = read_npz(reference / "golden" / "model_nanodet_plus_m_io.npz")
    found = select_detections(
        torch.from_numpy(case["decoded_xyxy_clamped"][0]),
        torch.from_numpy(case["raw"][0, :, :80]).sigmoid(),
        score_threshold=0.05,
        nms_iou=0.6,
        max_detections=100,
        one_label_per_prior=False,
    )
    expected = case["post_dets_xyxy_score"]
    np.testing.assert_allclose(found.scores_N, expected[:, 4], atol=1e-5)
    np.testing.assert_allclose(found.boxes_N4, expected[:, :4], atol=1e-3)
    assert found.labels_N.tolist() == case["post_labels"].tolist()


def training_case(reference: Path) -> tuple[Any, Tensor, Targets]:
    case = read_npz(reference / "golden" / "model_nanodet_plus_m_trainforward.npz")
    sizes = case["num_gt"].tolist()
    boxes = torch.from_numpy(case["gt_xyxy_concat"]).split(sizes)
    labels = torch.from_numpy(case["gt_labels_concat"]).split(sizes)
    return case, torch.from_numpy(case["input_norm"]), Targets.from_lists(boxes, labels)


@pytest.mark.reference
@pytest.mark.parametrize("epoch", [0, 10])
def test_training_has_the_originals_numbers(reference: Path, epoch: int) -> None:
    case, images, truth = training_case(reference)
    model: Detector = original(reference).train()
    moment = TrainingMoment(epoch=epoch, tail=False)
    outputs = model.training_outputs(images, moment)
    if epoch == 0:
        np.testing.assert_allclose(outputs[0].detach(), case["epoch0_head_out"], atol=5e-3)
    terms = model.loss_of_outputs(outputs, truth, moment, size_hw=(192, 192))
    for prefix in ("", "aux_"):
        for name, theirs in TERMS.items():
            expected = float(case[f"epoch{epoch}_{prefix}{theirs}"])
            assert float(terms[prefix + name].detach()) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    torch.stack(list(terms.values())).sum().backward()
    norms = {
        name: float(each.grad.norm()) for name, each in model.named_parameters() if each.grad is not None
    }
    order = json.loads(bytes(case["param_names_json"]))
    found = [norms[name] for name in order]
    np.testing.assert_allclose(found, case[f"epoch{epoch}_grad_norms"], rtol=1e-2, atol=1e-3)
