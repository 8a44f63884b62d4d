"""The YOLOX networks: names, shapes, counts, and what the original's nano and tiny compute."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from detection.architectures import ARCHITECTURES
from detection.boxes import cxcywh_to_xyxy
from detection.errors import UnknownNameError
from detection.families.yolox import YoloxAssignerConfig
from detection.models import MODELS, create_model
from detection.models.detector import Detector, TrainingMoment
from detection.models.yolox import SIZES, YoloX
from detection.targets import Targets
from detection.training.config import OptimizerConfig, OptimizerKind
from detection.training.ema import ModelEma
from detection.training.optimizers import build_optimizer, parameter_groups
from tests.npz import read_npz

CONVOLUTION_GFLOPS = {
    "yolox-nano": 1.045,
    "yolox-tiny": 6.413,
    "yolox-s": 26.69,
    "yolox-m": 73.53,
    "yolox-l": 155.29,
    "yolox-x": 281.41,
}


def on_meta(name: str, num_classes: int = 80) -> YoloX:
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes)
    assert isinstance(model, YoloX)
    return model


def test_every_size_has_an_architecture_and_a_model() -> None:
    of_the_family = [name for name in ARCHITECTURES if ARCHITECTURES[name].family == "yolox"]
    assert list(SIZES) == of_the_family
    assert set(SIZES) <= set(MODELS.names())


@pytest.mark.parametrize("name", SIZES)
def test_names_shapes_and_counts_are_the_originals(golden: Path, name: str) -> None:
    expected = json.loads((golden / "yolox_keys.json").read_text())[name]
    model = on_meta(name)
    state = model.state_dict()
    lines = "".join(f"{key} {list(value.shape)}\n" for key, value in sorted(state.items()))
    assert len(state) == expected["entries"]
    assert hashlib.sha256(lines.encode()).hexdigest() == expected["sha256"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == expected["parameters"] == ARCHITECTURES[name].published.parameters
    groups = [len(parameters) for parameters in parameter_groups(model).values()]
    assert groups == expected["tensors_norm_weight_bias"]


@pytest.mark.reference
@pytest.mark.parametrize("name", SIZES)
def test_state_dicts_have_the_originals_entries_in_order(reference: Path, name: str) -> None:
    path = reference / "golden" / f"keys_{name.replace('-', '_')}.json"
    expected = json.loads(path.read_text())["state_dict"]
    state = on_meta(name).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == {
        key: entry["shape"] for key, entry in expected.items()
    }
    assert list(state) == list(expected)


@pytest.mark.parametrize("name", SIZES)
def test_the_convolutions_cost_what_was_published(name: str) -> None:
    model, side = on_meta(name).eval(), ARCHITECTURES[name].input_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, side, side, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(CONVOLUTION_GFLOPS[name], rel=0.03)


def test_an_untrained_network_expects_background() -> None:
    head = create_model("yolox-nano", num_classes=2).head
    for convolution in (*head.cls_preds, *head.obj_preds):
        torch.testing.assert_close(convolution.bias.sigmoid(), torch.full_like(convolution.bias, 0.01))
    assert all(convolution.bias.abs().max() < 1 for convolution in head.reg_preds)


def test_a_typo_lists_the_architectures() -> None:
    with pytest.raises(UnknownNameError, match="yolox-nano"):
        create_model("yolox-nona", num_classes=2)
    with pytest.raises(ValueError, match="at least one class"):
        create_model("yolox-nano", num_classes=0)


def test_scores_are_objectness_times_class_and_boxes_are_corners() -> None:
    torch.manual_seed(0)
    model = create_model("yolox-nano", num_classes=2).eval()
    pictures = torch.rand(2, 3, 64, 96) * 255
    raw, (boxes, scores) = model(pictures), model.predict(pictures)
    torch.testing.assert_close(scores, raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid())
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    # The first prior of the middle level: cell (0, 0) of stride 16.
    first = raw[0, 96]
    centre, size = first[:2] * 16, first[2:4].exp() * 16
    torch.testing.assert_close(boxes[0, 96], torch.cat((centre - size / 2, centre + size / 2)))


def numbers_of(numbers: Path, name: str) -> tuple[Any, dict[str, Tensor]]:
    """Return inputs and outputs, and the weights, of one of the original's models."""
    weights = read_npz(numbers / f"model_yolox_{name}_weights_fp16.npz")
    state = {key.removeprefix("sd/"): torch.from_numpy(weights[key]) for key in weights}
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    return read_npz(numbers / f"model_yolox_{name}_io.npz"), state


def test_outputs_have_the_originals_numbers(numbers: Path) -> None:
    names = [path.name.split("_")[2] for path in sorted(numbers.glob("model_yolox_*_io.npz"))]
    assert "nano" in names
    for name in names:
        case, state = numbers_of(numbers, name)
        model = create_model(f"yolox-{name}", num_classes=80).eval()
        model.load_state_dict(state)
        pictures = torch.from_numpy(case["input_bgr_u8"]).float()
        every = int(case["every"]) if "every" in case else 1
        with torch.no_grad():
            raw, (boxes, scores) = model(pictures), model.predict(pictures)
            model.fuse()
            fused = model(pictures)
        np.testing.assert_allclose(raw[:, ::every], case["raw"], rtol=1e-3, atol=5e-3)
        np.testing.assert_allclose(fused, raw, rtol=1e-3, atol=5e-3)
        decoded = torch.from_numpy(case["decoded"])
        corners = cxcywh_to_xyxy(decoded[..., :4])
        np.testing.assert_allclose(boxes[:, ::every], corners, rtol=2e-3, atol=5e-2)
        np.testing.assert_allclose(scores[:, ::every], decoded[..., 4:5] * decoded[..., 5:], atol=2e-3)


def step_of(case: Any, model: Detector, optimizer: Optimizer) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Do the golden training step; return the loss components and the gradients."""
    labels = torch.from_numpy(case["labels_cls_cxcywh"])
    valid = labels.sum(dim=2) > 0
    targets = Targets(cxcywh_to_xyxy(labels[..., 1:]), labels[..., 0].long(), valid)
    pictures = torch.from_numpy(case["input_bgr_u8"]).float()
    terms = model.loss(pictures, targets, TrainingMoment(epoch=0, tail=False))
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    optimizer.step()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return [total, *terms.values(), model.loss_statistics["assigned"]], gradients


def names_in(case: Any, key: str) -> Any:
    return json.loads(bytes(case[key]))


def test_one_training_step_has_the_originals_numbers(numbers: Path) -> None:
    case = read_npz(numbers / "model_yolox_nano_trainstep.npz")
    model = create_model("yolox-nano", num_classes=80, assigner=YoloxAssignerConfig(rule="center15"))
    model.load_state_dict(numbers_of(numbers, "nano")[1])
    config = OptimizerConfig(kind=OptimizerKind.SGD, lr=float(case["lr"]), momentum=0.9, weight_decay=5e-4)
    optimizer = build_optimizer(model, config)
    average = ModelEma(model, decay=0.9998, ramp_updates=2000, integer_buffers="keep")
    components, gradients = step_of(case, model, optimizer)
    average.update(model)
    state = model.state_dict()

    found = [float(each.detach()) for each in components]
    np.testing.assert_allclose(found, case["components_per_step"][0], rtol=1e-3, atol=1e-3)
    for key in case:
        folder, _, name = key.partition("/")
        if folder == "grad0":
            np.testing.assert_allclose(
                gradients[name], case[key], rtol=1e-2, atol=1e-3 * np.abs(case[key]).max()
            )
        if folder == "bn_after1" and not name.endswith((".weight", ".bias")):
            np.testing.assert_allclose(state[name], case[key], rtol=1e-3, atol=1e-3)
    order = names_in(case, "param_names_json")
    tensors = {"grad_norms": gradients, "param_norms_after": state}
    for key, values in tensors.items():
        norms = [float(values[name].norm()) for name in order]
        np.testing.assert_allclose(norms, case[key][0], rtol=1e-2, atol=1e-3, err_msg=key)
    averaged = average.model.state_dict()
    norms = [float(averaged[name].float().norm()) for name in names_in(case, "ema_names_json")]
    np.testing.assert_allclose(norms, case["ema_norms_after"][0], rtol=1e-2, atol=1e-3)
    by_identity = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [{by_identity[id(each)] for each in group["params"]} for group in optimizer.param_groups]
    assert groups == [set(names) for names in names_in(case, "group_names_json")]
