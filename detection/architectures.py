"""The architectures by name, with their published facts. Plain Python: no torch here.

The network of the same name is in `detection/models/`, how its family is trained in `detection/families/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from detection.errors import UnknownNameError
from detection.input_convention import IMAGENET, NANODET_STRETCH, YOLOX, InputConvention
from detection.model_record import PUBLISHED_CROP, CropRule, ModelRecord
from detection.registry import Registry
from detection.tasks import Task

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedResults:
    """Figures of the original project, as it states them; fractions, not percent."""

    input_size: int
    """Side of the square network input, pixels."""
    ap_val: float | None = None
    """Of a detector: AP on COCO val2017."""
    accuracy: float | None = None
    """Of a classifier: how often its first answer is right on ImageNet's validation pictures."""
    parameters: int
    """Counted with COCO's 80 classes, of a classifier with ImageNet's 1000."""
    gflops: float
    """2 x multiply-adds at the input size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture(ABC):
    """One network by name: what the API shows of it."""

    task: ClassVar[Task]

    name: str
    family: str
    input_size: int
    """Side of the square network input, pixels."""
    input_multiple: int
    coarsest_stride: int
    """Pixels of the input per cell of the last feature map."""
    convention: InputConvention
    published: PublishedResults
    """At `input_size`."""
    published_elsewhere: tuple[PublishedResults, ...] = ()
    """At other input sizes."""
    weights_licence: str = "Apache-2.0"

    @abstractmethod
    def record(
        self,
        *,
        classes: tuple[str, ...],
        convention: InputConvention | None = None,
        input_size_hw: tuple[int, int] | None = None,
    ) -> ModelRecord:
        """Return the record of a model of this architecture; None is the architecture's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorArchitecture(Architecture):
    """A network that boxes objects."""

    task: ClassVar[Task] = Task.DETECT

    nms_iou: float
    """Boxes of one class that overlap a better one by more than this are dropped."""
    one_label_per_prior: bool
    evaluation_score_threshold: float
    evaluation_max_detections: int
    """Which detections of a picture the published figures count."""

    def record(
        self,
        *,
        classes: tuple[str, ...],
        convention: InputConvention | None = None,
        input_size_hw: tuple[int, int] | None = None,
        nms_iou: float | None = None,
        evaluation_score_threshold: float | None = None,
        evaluation_max_detections: int | None = None,
    ) -> ModelRecord:
        def chosen(value: T | None, otherwise: T) -> T:
            return otherwise if value is None else value

        return ModelRecord(
            architecture=self.name,
            classes=classes,
            input_size_hw=input_size_hw or (self.input_size, self.input_size),
            input_convention=convention or self.convention,
            nms_iou=chosen(nms_iou, self.nms_iou),
            one_label_per_prior=self.one_label_per_prior,
            evaluation_score_threshold=chosen(evaluation_score_threshold, self.evaluation_score_threshold),
            evaluation_max_detections=chosen(evaluation_max_detections, self.evaluation_max_detections),
        )


ARCHITECTURES: Registry[Architecture] = Registry("architecture")


def detector_architecture(name: str) -> DetectorArchitecture:
    """Return the detector of this name.

    Raises:
        UnknownNameError: there is none.
    """
    architecture = ARCHITECTURES[name]
    if not isinstance(architecture, DetectorArchitecture):
        raise UnknownNameError("detector", name, names_for(Task.DETECT))
    return architecture


def names_for(task: Task) -> list[str]:
    """Return the architectures of one task by name."""
    return [name for name in ARCHITECTURES if ARCHITECTURES[name].task is task]


def _add_yolox(name: str, *, input_size: int, ap: float, parameters: int, gflops: float) -> None:
    ARCHITECTURES.add(
        name,
        DetectorArchitecture(
            name=name,
            family="yolox",
            input_size=input_size,
            input_multiple=32,
            coarsest_stride=32,
            convention=YOLOX,
            nms_iou=0.65,
            one_label_per_prior=True,
            evaluation_score_threshold=0.001,
            evaluation_max_detections=1000,
            published=PublishedResults(
                input_size=input_size, ap_val=ap, parameters=parameters, gflops=gflops
            ),
        ),
    )


_add_yolox("yolox-nano", input_size=416, ap=0.258, parameters=912_159, gflops=1.11)
_add_yolox("yolox-tiny", input_size=416, ap=0.328, parameters=5_055_855, gflops=6.49)
_add_yolox("yolox-s", input_size=640, ap=0.405, parameters=8_968_255, gflops=26.93)
_add_yolox("yolox-m", input_size=640, ap=0.469, parameters=25_326_495, gflops=73.98)
_add_yolox("yolox-l", input_size=640, ap=0.497, parameters=54_208_895, gflops=156.01)
_add_yolox("yolox-x", input_size=640, ap=0.511, parameters=99_071_455, gflops=282.46)


def _add_nanodet_plus(
    name: str, *, parameters: int, at_416: tuple[float, float], at_320: tuple[float, float]
) -> None:
    """File a member of the family with AP and GFLOPs at its two input sizes."""

    def published(input_size: int, ap: float, gflops: float) -> PublishedResults:
        return PublishedResults(input_size=input_size, ap_val=ap, parameters=parameters, gflops=gflops)

    ARCHITECTURES.add(
        name,
        DetectorArchitecture(
            name=name,
            family="nanodet-plus",
            input_size=416,
            input_multiple=32,
            coarsest_stride=64,
            convention=NANODET_STRETCH,
            nms_iou=0.6,
            one_label_per_prior=False,
            evaluation_score_threshold=0.05,
            evaluation_max_detections=100,
            published=published(416, *at_416),
            published_elsewhere=(published(320, *at_320),),
        ),
    )


_add_nanodet_plus("nanodet-plus-m", parameters=1_197_924, at_416=(0.304, 1.62), at_320=(0.270, 0.96))
_add_nanodet_plus("nanodet-plus-m-1.5x", parameters=2_477_792, at_416=(0.341, 3.10), at_320=(0.299, 1.83))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierArchitecture(Architecture):
    """A network that says what one object is."""

    task: ClassVar[Task] = Task.CLASSIFY

    def record(
        self,
        *,
        classes: tuple[str, ...],
        convention: InputConvention | None = None,
        input_size_hw: tuple[int, int] | None = None,
        crop: CropRule = PUBLISHED_CROP,
        attribute: str | None = None,
    ) -> ModelRecord:
        return ModelRecord(
            task=self.task,
            architecture=self.name,
            classes=classes,
            input_size_hw=input_size_hw or (self.input_size, self.input_size),
            input_convention=convention or self.convention,
            crop=crop,
            attribute=attribute,
        )


def classifier_architecture(name: str) -> ClassifierArchitecture:
    """Return the classifier of this name.

    Raises:
        UnknownNameError: there is none.
    """
    architecture = ARCHITECTURES[name]
    if not isinstance(architecture, ClassifierArchitecture):
        raise UnknownNameError("classifier", name, names_for(Task.CLASSIFY))
    return architecture


def _add_classifier(name: str, *, accuracy: float, parameters: int, gflops: float) -> None:
    ARCHITECTURES.add(
        name,
        ClassifierArchitecture(
            name=name,
            family="classifier",
            input_size=224,
            input_multiple=32,
            coarsest_stride=32,
            convention=IMAGENET,
            published=PublishedResults(
                input_size=224, accuracy=accuracy, parameters=parameters, gflops=gflops
            ),
            weights_licence="BSD-3-Clause",
        ),
    )


# The accuracy is that of the first weights that torchvision published of each, at 224 pixels.
_add_classifier("resnet18", accuracy=0.69758, parameters=11_689_512, gflops=3.63)
_add_classifier("resnet34", accuracy=0.73314, parameters=21_797_672, gflops=7.33)
_add_classifier("resnet50", accuracy=0.76130, parameters=25_557_032, gflops=8.18)
_add_classifier("resnet101", accuracy=0.77374, parameters=44_549_160, gflops=15.60)
_add_classifier("mobilenet_v3_small", accuracy=0.67668, parameters=2_542_856, gflops=0.11)
_add_classifier("mobilenet_v3_large", accuracy=0.74042, parameters=5_483_032, gflops=0.43)
_add_classifier("efficientnet_b0", accuracy=0.77692, parameters=5_288_548, gflops=0.77)
_add_classifier("convnext_tiny", accuracy=0.82520, parameters=28_589_128, gflops=8.91)
