"""What a dataset looks like from outside."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, Json

from app.api.links import Links
from app.api.shapes import EXAMPLE_ID, ClassName, Name, NewClassName, Shape, Wish, example
from detection.data.findings import Action, Severity
from detection.data.records import Split


class DatasetStatus(StrEnum):
    IMPORTING = "importing"
    READY = "ready"
    REJECTED = "rejected"


class RequestedFormat(StrEnum):
    AUTO = "auto"
    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"


class ExportFormat(StrEnum):
    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"


class ClassRules(Wish):
    """How the archive's classes become the dataset's; a class may stand in one of the rules only."""

    merge: dict[NewClassName, list[ClassName]] = Field(default_factory=dict, max_length=1000)
    """New class → the classes that become one in it."""
    rename: dict[ClassName, NewClassName] = Field(default_factory=dict, max_length=1000)
    """Old name → new name."""
    drop: list[ClassName] = Field(default_factory=list, max_length=1000)
    """Classes whose boxes are left out; their pictures stay."""


class DatasetFields(Wish):
    """The plain fields of `POST /datasets`; the file comes beside them, as `archive`."""

    name: Name | None = None
    """Shown in lists; default is the file's own name."""
    format: RequestedFormat = RequestedFormat.AUTO
    """`auto` looks for COCO, YOLO and Pascal VOC, in this order."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.2
    """How much of `train` becomes `val` when the archive has no validation split; stratified."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Of that cut."""
    classes: Json[ClassRules] | None = None
    """JSON: `{"merge": {"vehicle": ["car", "van"]}, "rename": {"rbc": "red cell"}, "drop": ["other"]}`."""


class DatasetPatch(Wish):
    model_config = example(name="blood cells, cleaned")

    name: Name


class SplitCounts(Shape):
    images: int
    boxes: int


class DatasetFailure(Shape):
    """Why the archive was rejected."""

    code: str
    message: str


class DatasetRead(Shape):
    """A dataset; immutable once it is `ready`."""

    model_config = example(
        id=EXAMPLE_ID,
        name="blood cells",
        status="ready",
        requested_format="auto",
        format="voc",
        classes=["Platelets", "RBC", "WBC"],
        splits={"train": {"images": 205, "boxes": 2789}, "val": {"images": 87, "boxes": 1166}},
        options={"validation_fraction": 0.2, "seed": 0, "classes": None},
        sha256="2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        size_bytes=7743401,
        job_id=EXAMPLE_ID,
        failure=None,
        created_at="2026-11-20T12:00:00Z",
        updated_at="2026-11-20T12:00:09Z",
        links={"self": f"/datasets/{EXAMPLE_ID}", "report": f"/datasets/{EXAMPLE_ID}/report"},
    )

    id: str
    name: str
    status: DatasetStatus
    requested_format: str
    format: str | None
    """The format that was found; null while importing."""
    classes: list[str]
    splits: dict[Split, SplitCounts]
    options: dict[str, Any]
    sha256: str
    """Of the uploaded archive."""
    size_bytes: int
    """Of the uploaded archive."""
    job_id: str | None
    """The import; null when that job was deleted."""
    failure: DatasetFailure | None
    """Only when `rejected`."""
    created_at: datetime
    updated_at: datetime
    links: Links


class FindingRead(Shape):
    """One problem in one place, and what was done about it."""

    code: str
    severity: Severity
    action: Action
    file: str
    where: str = ""
    message: str
    image_id: str = ""


class ReportRead(Shape):
    """Everything that was noticed in the archive."""

    status: DatasetStatus
    counts: dict[str, int]
    """How often each code was found; findings beyond the limit are only counted."""
    findings: list[FindingRead]


class BoxRead(Shape):
    label: str
    class_id: int
    x1: float
    y1: float
    x2: float
    y2: float
    crowd: bool = False
    difficult: bool = False


class ImageRead(Shape):
    """One picture with its boxes, in pixels of the picture as a person sees it."""

    id: str
    file_name: str
    width: int
    height: int
    split: Split
    boxes: list[BoxRead]
    findings: list[str]
    """Codes of what was noticed about this picture."""
    links: Links


class SplitNumbers(Shape):
    """One number per split."""

    train: int
    val: int
    test: int


class ClassNumbers(Shape):
    name: str
    boxes: SplitNumbers
    images: SplitNumbers
    """Pictures that show it."""


class Histogram(Shape):
    """Counts between edges; the last edge may be null, which is without end."""

    edges: list[float | None]
    counts: list[int]


class AreaNumbers(Shape):
    """Boxes by COCO's borders: below 32², below 96², and above, in square pixels."""

    small: int
    medium: int
    large: int


class ImageSizeNumbers(Shape):
    width: int
    height: int
    images: int


class StatisticsRead(Shape):
    """What the dataset is made of, counted."""

    images: SplitNumbers
    boxes: SplitNumbers
    images_without_boxes: SplitNumbers
    classes: list[ClassNumbers]
    box_sides: Histogram
    """Of √(box area / picture area)."""
    box_areas: AreaNumbers
    aspect_ratios: Histogram
    """Of width / height."""
    boxes_per_image: Histogram
    centres: list[list[int]]
    """A square grid over the picture, rows from the top: how many boxes have their centre there."""
    image_sizes: list[ImageSizeNumbers]
    """The most frequent ones."""
