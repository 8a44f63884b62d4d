"""Channels that go: which, how many, and that nothing else about a detector changes."""

from __future__ import annotations

import copy
import logging
import random
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from detection.analysis.channel_pruning import channels_to_keep, prune_channels
from detection.analysis.channel_trace import makers, trace_channels
from detection.analysis.complexity import count_complexity
from detection.layers.conv import ConvBnAct
from detection.models import create_model, create_served_model, load_served_model
from detection.models.detector import Detector
from detection.models.widths import is_depthwise
from tests.unit.detection.test_conv import with_random_statistics

ARCHITECTURES = ["yolox-nano", "yolox-tiny", "nanodet-plus-m"]
CLASSES = 3


def detector_with_statistics(architecture: str) -> Detector:
    torch.manual_seed(0)
    detector = create_served_model(architecture, num_classes=CLASSES)
    with_random_statistics(detector)
    return detector


def silence_some(detector: Detector, amount: float) -> None:
    """Let as many channels as `prune_channels` takes away always answer 0, chosen at random."""
    trace = trace_channels(detector)

    def dense(name: str) -> bool:
        module = detector.get_submodule(name)
        return isinstance(module, nn.Conv2d) and not is_depthwise(module)

    layers: dict[frozenset[str], list[int]] = {}
    for group, names in makers(trace, dense).items():
        if group not in trace.fixed:
            layers.setdefault(names, []).append(group)
    chosen = random.Random(0)
    silent = {
        group
        for groups in layers.values()
        for group in chosen.sample(groups, len(groups) - channels_to_keep(len(groups), amount))
    }
    for name, channels in trace.outputs.items():
        module = detector.get_submodule(name)
        if isinstance(module, nn.BatchNorm2d):
            places = [place for place, group in enumerate(channels) if group in silent]
            with torch.no_grad():
                module.weight[places] = 0
                module.bias[places] = 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_channels_that_say_nothing_go_without_a_trace(architecture: str) -> None:
    detector = detector_with_statistics(architecture)
    silence_some(detector, 0.4)
    pictures = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = detector(pictures)
        before = count_complexity(detector, (64, 96))
        pruned = prune_channels(detector, 0.4)
        torch.testing.assert_close(detector(pictures), expected, rtol=1e-4, atol=1e-4)
        detector.fuse()
        torch.testing.assert_close(detector(pictures), expected, rtol=1e-3, atol=1e-3)
    after = count_complexity(detector, (64, 96))
    assert pruned.parameters[0] == before.parameters
    assert pruned.parameters[1] < 0.75 * before.parameters
    assert after.gflops < 0.8 * before.gflops
    assert len(pruned.layers) > 50


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_narrower_network_is_rebuilt_from_the_shapes_of_its_weights(architecture: str) -> None:
    detector = detector_with_statistics(architecture)
    prune_channels(detector, 0.5)
    again = load_served_model(architecture, num_classes=CLASSES, state=detector.state_dict())
    pictures = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(pictures), detector(pictures))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_asked_for_is_nothing_done(architecture: str) -> None:
    detector = detector_with_statistics(architecture)
    before = copy.deepcopy(detector.state_dict())
    assert prune_channels(detector, 0.0).layers == {}
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_predictions_and_what_training_reads_keep_their_channels() -> None:
    detector = detector_with_statistics("nanodet-plus-m")
    pictures = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        widths = [
            [each.shape[1] for each in detector.backbone(pictures)],
            [each.shape[1] for each in detector.fpn(detector.backbone(pictures))],
            detector(pictures).shape,
        ]
        prune_channels(detector, 0.6)
        assert widths == [
            [each.shape[1] for each in detector.backbone(pictures)],
            [each.shape[1] for each in detector.fpn(detector.backbone(pictures))],
            detector(pictures).shape,
        ]


def test_a_pruned_network_can_learn_with_all_that_training_needs() -> None:
    served = detector_with_statistics("nanodet-plus-m")
    prune_channels(served, 0.5)
    shapes = {name: tuple(value.shape) for name, value in served.state_dict().items()}
    detector = create_model("nanodet-plus-m", num_classes=7, shapes=shapes)
    assert detector.aux_fpn is not None
    neck, copied = detector.fpn.state_dict(), detector.aux_fpn.state_dict()
    assert {name: value.shape for name, value in neck.items()} == {
        name: value.shape for name, value in copied.items()
    }
    assert detector(torch.rand(2, 3, 64, 64)).shape[-1] == 7 + 32, "the classes are the training's own"


class Small(Detector):
    """Two units whose outputs are added, and a prediction."""

    strides: ClassVar[tuple[int, ...]] = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 1
        self.first, self.second = ConvBnAct(3, 4, 1), ConvBnAct(4, 4, 1)
        self.last = nn.Conv2d(4, 6, 1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        one = self.first(images_BCHW)
        return self.last(one + self.second(one)).flatten(2).transpose(1, 2)

    def parts(self) -> dict[str, nn.Module]:
        return {}

    def fuse(self) -> None: ...

    def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def loss_of_outputs(self, *args: object, **options: object) -> dict[str, Tensor]:
        raise NotImplementedError


def test_what_is_added_goes_together_by_the_norms_of_the_fused_filters() -> None:
    """By hand: fused filters of the first unit have the norms 1, 8, 3, 4, of the second 2, 1, 9, 4."""
    model = Small().eval()
    with torch.no_grad():
        model.first.conv.weight.copy_(torch.tensor([1.0, 4, 3, 4]).view(4, 1, 1, 1).expand(4, 3, 1, 1) / 3)
        model.second.conv.weight.copy_(torch.tensor([2.0, 1, 9, 4]).view(4, 1, 1, 1).expand(4, 4, 1, 1) / 4)
        for norm in (model.first.bn, model.second.bn):
            norm.running_var.fill_(1 - norm.eps)
        model.first.bn.weight[1] = -2
    pruned = prune_channels(model, 0.5)
    assert pruned.layers == {"first.conv": (4, 2), "second.conv": (4, 2)}
    # Relative to the means of both, 4 and 4, the channels are worth 0.75, 2.25, 3 and 2.
    assert model.second.conv.weight[:, 0].flatten().tolist() == [0.25, 9 / 4]
    assert model.last.weight.shape == (6, 2, 1, 1)


@pytest.mark.parametrize(
    ("channels", "amount", "kept"),
    [(1, 0.9, 1), (2, 0.9, 1), (16, 0.3, 11), (32, 0.3, 24), (64, 0.3, 48), (128, 0.3, 96), (256, 0.1, 224)],
)
def test_large_layers_keep_what_kernels_like(channels: int, amount: float, kept: int) -> None:
    assert channels_to_keep(channels, amount) == kept
    assert channels_to_keep(channels, 0.0) == channels


def test_an_amount_that_is_no_fraction_is_refused() -> None:
    for amount in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="no fraction"):
            prune_channels(Small(), amount)


def test_what_is_not_understood_is_refused() -> None:
    class Unknown(Small):
        def forward(self, images_BCHW: Tensor) -> Tensor:
            return super().forward(images_BCHW.flip(1))

    with pytest.raises(ValueError, match="cannot be followed through flip"):
        trace_channels(Unknown())


def test_the_log_says_what_stays(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        prune_channels(Small(), 0.5)
    assert caplog.messages == ["channels pruned by 0.5 in 2 layers: 36 of 74 parameters stay"]
