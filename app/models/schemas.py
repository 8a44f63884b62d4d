"""What a model and its evaluations look like from outside."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, Json, StringConstraints, field_validator

from app.api.links import Links
from app.api.shapes import EXAMPLE_ID, Name, NewClassName, Shape, Wish, example
from app.api.strict_json import JsonField
from app.api.tta import Tta
from app.models.one_device import OneDevice
from app.models.serving import ServingRead
from detection.architectures import ARCHITECTURES
from detection.data.records import Split
from detection.input_convention import NAMED_CONVENTIONS, ChannelOrder, Resize
from detection.tasks import Task

Alias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9._-]{0,63}$"), Field(examples=["production"])]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Three = tuple[Finite, Finite, Finite]
PositiveFinite = Annotated[float, Field(allow_inf_nan=False, gt=0, le=1e6)]
COCO_CLASSES = 80
ONE_OF_ALL: dict[str, Any] = {"enum": list(ARCHITECTURES.names())}
"""Said only, for the validator says more than that the value is none of them."""


class WeightsFormat(StrEnum):
    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH = "torch"


class FileRead(Shape):
    format: WeightsFormat
    """As `GET /models/{id}/weights` takes it."""
    size_bytes: int
    """Of the download."""
    sha256: str
    """Of the download, to check it."""


class ModelMetrics(Shape):
    """COCO metrics, or those of a classifier, of the very weights that are served; fractions."""

    model_config = ConfigDict(extra="allow")

    ap: float | None = None
    """Mean over IoU 0.5 to 0.95 and over classes."""
    ap50: float | None = None
    """At IoU 0.5."""
    ap75: float | None = None
    """At IoU 0.75."""
    ap_small: float | None = None
    """Of boxes below 32² pixels."""
    ap_medium: float | None = None
    """Of boxes from 32² to 96² pixels."""
    ap_large: float | None = None
    """Of larger boxes."""
    accuracy: float | None = None
    """Of a classifier: how many crops it is right about."""
    mean_recall: float | None = None
    """Of a classifier: the accuracy if every class were as frequent."""
    per_class: dict[str, Any] | list[Any] | None = None
    """The same for each class."""
    split: str | None = None
    """The split they were measured on."""


class ModelRead(Shape):
    """Trained or imported weights with classes and input convention: what `/detect` serves."""

    model_config = example(
        id=EXAMPLE_ID,
        name="blood cells",
        alias="production",
        is_default=True,
        origin="trained",
        task="detect",
        architecture="yolox-nano",
        classes=["Platelets", "RBC", "WBC"],
        input_size=[416, 416],
        metrics={"ap": 0.579, "ap50": 0.882, "ap75": 0.66, "split": "val"},
        parameters=896754,
        gflops=1.07,
        record={"architecture": "yolox-nano", "nms_iou": 0.65},
        provenance={"dataset_sha256": "2c26b46b…", "seed": 0},
        files=[{"format": "onnx", "size_bytes": 3702114, "sha256": "9f86d081884c7d65…"}],
        serving={
            "backend": "openvino",
            "precision": "bf16",
            "streams": 2,
            "threads": 1,
            "batch_size": 1,
        },
        job_id=EXAMPLE_ID,
        created_at="2026-11-20T12:00:00Z",
        updated_at="2026-11-20T12:00:00Z",
        links={"self": f"/models/{EXAMPLE_ID}", "weights": f"/models/{EXAMPLE_ID}/weights"},
    )

    id: str
    """For all calls about it."""
    name: str
    """Shown in lists."""
    alias: str | None
    """Another name for `/detect`; it names one model at a time."""
    is_default: bool
    """Whether it answers `/detect` when no model is named."""
    origin: str
    """`trained`, `imported` or `pruned`."""
    task: Task
    """`detect`: `model` of `/detect` takes it; `classify`: `classifier` does."""
    architecture: str
    """The network, as `GET /architectures` lists them."""
    classes: list[str]
    """In the order of their ids."""
    input_size: list[int]
    """[height, width], pixels."""
    metrics: ModelMetrics | None
    """Null when it was never evaluated."""
    parameters: int
    """Numbers in its weights."""
    gflops: float | None
    """2 × multiply-adds at its input size, in billions."""
    record: dict[str, Any]
    """Input convention and thresholds: enough to serve the exported file elsewhere."""
    provenance: dict[str, Any]
    """Dataset sha256, configuration, seed, versions."""
    files: list[FileRead]
    """The formats that are there."""
    serving: ServingRead | None
    """How it is served since a plan pinned it (`GET /models/{id}/plan`); null leaves it to the engine."""
    job_id: str | None
    """The job that made it; null when that was deleted."""
    created_at: datetime
    """When it was published."""
    updated_at: datetime
    """When something about it changed last."""
    links: Links
    """Where to go on."""


class ModelPatch(Wish):
    """What is left out stays; `alias: null` removes the alias, `serving: null` what a plan has pinned."""

    model_config = example(name="blood cells v2", alias="production")

    name: Name | None = None
    """The new name."""
    alias: Alias | None = None
    """Moves here when another model has it."""
    serving: None = None
    """Null leaves it to the engine again how the model is served; `POST /models/{id}/plan` pins something."""

    @field_validator("name")
    @classmethod
    def _stay_named(cls, name: str | None) -> str:
        if name is None:
            raise ValueError("a model has a name; leave the field out to keep it")
        return name

    @field_validator("serving", mode="before")
    @classmethod
    def _only_be_taken_away(cls, serving: Any) -> Any:
        if serving is not None:
            raise ValueError("only null, which takes it away; POST /models/{id}/plan measures and pins")
        return serving


class ConventionFields(Wish):
    """An input convention spelled out; what is left out is YOLOX's."""

    order: ChannelOrder = ChannelOrder.BGR
    """Of the colour channels."""
    scale: PositiveFinite = 1.0
    """Every value is multiplied by it first."""
    mean: Three = (0.0, 0.0, 0.0)
    """Then this is subtracted, by channel."""
    std: tuple[PositiveFinite, PositiveFinite, PositiveFinite] = (1.0, 1.0, 1.0)
    """Then it is divided by this, by channel."""
    resize: Resize = Resize.LETTERBOX
    """How a picture comes to the input size."""
    pad_value: Annotated[float, Field(allow_inf_nan=False, ge=0, le=255)] = 114.0
    """What fills the rest."""


class ImportFields(Wish):
    """The plain fields of `POST /models/import`; the file comes beside them, as `weights`."""

    name: Name | None = None
    """Shown in lists; default is the file's own name."""
    architecture: Annotated[str, Field(max_length=64, json_schema_extra=ONE_OF_ALL)] | None = None
    """Default: told from the shapes of the weights."""
    classes: (
        Annotated[Json[Annotated[list[NewClassName], Field(min_length=1, max_length=10_000)]], JsonField]
        | None
    ) = None
    """JSON list of names; default is COCO's when there are 80, and ImageNet's for a classifier of 1000."""
    input_convention: Annotated[str, Field(max_length=2000)] | None = None
    """`yolox`, `yolox-legacy`, `nanodet-stretch`, `nanodet-keep-ratio`, `imagenet`, or a JSON object
    `{order, scale, mean, std, resize, pad_value}`; default is that of the published weights."""

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in ARCHITECTURES:
            raise ValueError(f"unknown architecture; there are: {', '.join(ARCHITECTURES.names())}")
        return name

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str] | None) -> list[str] | None:
        if classes is not None and len(set(classes)) != len(classes):
            raise ValueError("a class is named twice")
        return classes

    def convention(self) -> str | dict[str, Any] | None:
        """Return the convention's name, or its parts; a fault is a ValueError with words for users."""
        if self.input_convention is None or self.input_convention in NAMED_CONVENTIONS:
            return self.input_convention
        return ConventionFields.model_validate_json(self.input_convention).model_dump(mode="json")


class ExportWish(Wish):
    model_config = example(format="onnx")

    format: WeightsFormat
    """The one to make."""


class EvaluateWish(Wish):
    model_config = example(dataset_id=EXAMPLE_ID, split="val")

    dataset_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$", examples=[EXAMPLE_ID])]
    """The dataset to measure on; it must be `ready`."""
    split: Split = Split.VAL
    """Which of its splits."""
    device: OneDevice = "auto"
    """`auto`, `cpu`, or one accelerator by number."""
    tta: Tta = None
    """Measure with test-time augmentation, and plainly beside it: `true` is the scales 1, 0.83, 0.67 with the
    flips none, lr, none; or an object with lists of `scales` and `flips`."""


class ClassCurvesRead(Shape):
    """Precision, recall and F1 of one class, or the mean of those with boxes; empty lists without boxes."""

    label: str | None
    """None for the mean."""
    boxes: int
    """How many were to be found."""
    precision_at_recall: list[float]
    """One for each of `recalls`: the best precision with that recall or more, as COCO defines it."""
    precision: list[float | None]
    """One for each of `score_thresholds`; null where nothing is found."""
    recall: list[float]
    """One for each of `score_thresholds`."""
    f1: list[float]
    """One for each of `score_thresholds`."""
    best_f1: float | None
    """The highest F1; null without boxes."""
    best_score_threshold: float | None
    """In the middle of the thresholds with the best F1: a good `score_threshold` for `POST /detect`. Null
    where nothing is right."""


class CurvesRead(Shape):
    """Precision over recall, and precision, recall and F1 over the score threshold."""

    iou: float
    """A box is found when a detection of its class overlaps it by this much."""
    recalls: list[float]
    """From 0 to 1, as COCO takes them."""
    score_thresholds: list[float]
    """From 0 to 1."""
    mean: ClassCurvesRead
    """Over the classes with boxes."""
    per_class: list[ClassCurvesRead]
    """In the order of the model's classes."""


class ConfusionMatrixRead(Shape):
    """Which class was taken for which."""

    iou: float | None
    """A detection and a box belong together when they overlap by this much; null for a classifier."""
    score_threshold: float | None
    """Detections below it are left out; null for a classifier."""
    labels: list[str]
    """The classes, and of a detector `background` at the end."""
    counts: list[list[int]]
    """A row per class in the picture, a column per class found there. Of a detector the last row counts
    detections where there is nothing, the last column boxes that were missed."""


EVALUATION = {
    "id": EXAMPLE_ID,
    "model_id": EXAMPLE_ID,
    "dataset_id": EXAMPLE_ID,
    "dataset_sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "split": "val",
    "metrics": {"ap": 0.579, "ap50": 0.882, "ap75": 0.66},
    "tta": None,
    "job_id": EXAMPLE_ID,
    "created_at": "2026-11-20T12:00:00Z",
    "links": {"self": f"/evaluations/{EXAMPLE_ID}", "model": f"/models/{EXAMPLE_ID}"},
}
CLASS_CURVES = {
    "label": "RBC",
    "boxes": 1166,
    "precision_at_recall": [1.0, 0.97, 0.0],
    "precision": [0.31, 0.92, None],
    "recall": [0.98, 0.9, 0.0],
    "f1": [0.47, 0.91, 0.0],
    "best_f1": 0.91,
    "best_score_threshold": 0.5,
}


class TtaPassRead(Shape):
    """One look at a picture."""

    scale: float
    """Of the network's input."""
    flip: Literal["none", "lr", "ud"]
    """Left-right, up-down, or none."""


class ComparedMetrics(Shape):
    """Fractions; null where the split has nothing to be found."""

    ap: float | None
    """Mean over IoU 0.5 to 0.95 and over classes."""
    ap50: float | None
    """At IoU 0.5."""
    ap75: float | None
    """At IoU 0.75."""


class TtaRead(Shape):
    """What test-time augmentation changed on this split."""

    passes: list[TtaPassRead]
    """How each picture was looked at."""
    plain: ComparedMetrics
    """Without it."""
    augmented: ComparedMetrics
    """With it."""
    difference: ComparedMetrics
    """`augmented` minus `plain`."""


class EvaluationRead(Shape):
    """Metrics of a model on a split; classes are matched by name."""

    model_config = example(**EVALUATION)

    id: str
    """For all calls about it."""
    model_id: str
    """The model that was measured."""
    dataset_id: str | None
    """The dataset it was measured on; null when that was deleted."""
    dataset_sha256: str
    """Of that dataset's archive."""
    split: Split
    """Which of its splits."""
    metrics: dict[str, Any]
    """`ap`, `ap50`, …, `per_class`: with test-time augmentation where `POST /models/{id}/evaluate` was asked
    for it, plain where a training measured. Of a classifier `accuracy`, `mean_recall`, `per_class`."""
    tta: TtaRead | None
    """Null when nothing but the plain look was measured."""
    job_id: str | None
    """The job that measured; null when that was deleted."""
    created_at: datetime
    """When it was measured."""
    links: Links
    """Where to go on."""


class EvaluationDetail(EvaluationRead):
    """One evaluation with everything that was measured; null for those of older versions, and with more
    than 500 classes. A classifier has no curves."""

    model_config = example(
        **EVALUATION,
        curves={
            "iou": 0.5,
            "recalls": [0.0, 0.5, 1.0],
            "score_thresholds": [0.0, 0.5, 1.0],
            "mean": {**CLASS_CURVES, "label": None},
            "per_class": [CLASS_CURVES],
        },
        confusion_matrix={
            "iou": 0.5,
            "score_threshold": 0.3,
            "labels": ["RBC", "background"],
            "counts": [[1049, 117], [91, 0]],
        },
    )

    curves: CurvesRead | None
    """Precision, recall and F1."""
    confusion_matrix: ConfusionMatrixRead | None
    """Which class was taken for which."""
