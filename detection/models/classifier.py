"""Classifiers of torchvision, under the names of their own weights.

He et al., "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385
Howard et al., "Searching for MobileNetV3", https://arxiv.org/abs/1905.02244
Tan, Le, "EfficientNet", https://arxiv.org/abs/1905.11946
Liu et al., "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545

Shape suffixes: B = images, H W = input pixels, C = classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import ClassVar, Protocol

from torch import Tensor, nn
from torch.nn import functional

from detection.families.classifier import ClassifierLossConfig
from detection.layers.conv import fused_conv
from detection.models.network import Network, TrainingMoment
from detection.registry import Registry
from detection.targets import Targets

BN_MOMENTUM = 0.1


class ClassifierBuilder(Protocol):
    """Builds one architecture with freshly initialised weights; None is the default loss."""

    def __call__(self, *, num_classes: int, loss: ClassifierLossConfig | None) -> Classifier: ...


CLASSIFIERS: Registry[ClassifierBuilder] = Registry("classifier")


class Classifier(Network):
    """A network that says what the one object in each picture is.

    It takes over the layers of a network of torchvision, so that names and initialisation are its own.
    """

    output_names: ClassVar[tuple[str, ...]] = ("probabilities",)

    def __init__(self, layers: nn.Module, *, num_classes: int, loss: ClassifierLossConfig) -> None:
        """Take the layers of a network whose last child is its head."""
        super().__init__()
        self.num_classes = num_classes
        self.loss_statistics: dict[str, Tensor] = {}
        self._smoothing = loss.label_smoothing
        for name, layer in layers.named_children():
            self.add_module(name, layer)
        self._head_name = name

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits [B, C]."""
        features = images_BCHW
        for name, layer in self.named_children():
            if name != self._head_name:
                features = layer(features)
        return self._classify(features)

    def loss_of_outputs(
        self,
        outputs: tuple[Tensor, ...],
        targets: Targets,
        moment: TrainingMoment,
        *,
        size_hw: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Return the cross entropy, the mean over the batch; each picture's first label is its own."""
        logits_BC, labels_B = outputs[0].float(), targets.labels_BG[:, 0]
        right_B = logits_BC.detach().argmax(dim=1) == labels_B
        self.loss_statistics = {"train_accuracy": right_B.float().mean()}
        entropy = functional.cross_entropy(logits_BC, labels_B, label_smoothing=self._smoothing)
        return {"cross_entropy": entropy}

    def predict(self, images_BCHW: Tensor) -> tuple[Tensor]:
        """Return the probabilities of the classes [B, C]."""
        return (self(images_BCHW).softmax(dim=1),)

    def parts(self) -> Mapping[str, nn.Module]:
        """Return `backbone`, all but the last linear layer, and `head`, that layer."""
        layers = dict(self.named_children())
        before, last = _split_head(layers.pop(self._head_name))
        if not _flattens(before):
            before = [nn.Flatten(), *before]
        return {"backbone": nn.Sequential(*layers.values(), *before), "head": last}

    def fuse(self) -> None:
        """See `Network.fuse`; layer norms stay."""
        for module in [*self.modules()]:
            for (conv_name, conv), (norm_name, norm) in pairwise([*module.named_children()]):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module.add_module(conv_name, fused_conv(conv, norm))
                    module.add_module(norm_name, nn.Identity())

    def _classify(self, features: Tensor) -> Tensor:
        head = self.get_submodule(self._head_name)
        return head(features if _flattens(head.children()) else features.flatten(1))


def _flattens(layers: Iterable[nn.Module]) -> bool:
    return any(isinstance(layer, nn.Flatten) for layer in layers)


def _split_head(head: nn.Module) -> tuple[list[nn.Module], nn.Module]:
    """Return what comes before the last linear layer of a head, and that layer."""
    if isinstance(head, nn.Linear):
        return [], head
    *before, last = head.children()
    return before, last


def build_classifier(name: str, *, num_classes: int, loss: ClassifierLossConfig | None = None) -> Classifier:
    """Return a classifier of torchvision with random weights, the last layer's too.

    Differs from the reference: batch norms follow their batches at least at `BN_MOMENTUM`. Those of
    MobileNetV3 have 0.01, which takes hundreds of steps to know a dataset; a training here may have fifty.
    """
    from torchvision.models import get_model  # see `imagenet_classes`

    layers = get_model(name, weights=None, num_classes=num_classes)
    for layer in layers.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = max(layer.momentum or 0.0, BN_MOMENTUM)
    return Classifier(layers, num_classes=num_classes, loss=loss or ClassifierLossConfig())


def imagenet_classes() -> tuple[str, ...]:
    """Return the 1000 classes of the published weights, in their order; torchvision brings the list."""
    # Not above: it imports PyTorch's compiler, which takes seconds, and a detector needs neither.
    from torchvision.models import get_model_weights

    weights = get_model_weights("resnet18")
    return tuple(weights.IMAGENET1K_V1.meta["categories"])


for _name in (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
):
    CLASSIFIERS.add(_name, partial(build_classifier, _name))
