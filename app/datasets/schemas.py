"""What a dataset looks like from outside."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, Json

from app.api.links import Links
from app.api.shapes import EXAMPLE_ID, ClassName, Name, NewClassName, Shape, Wish, example
from app.api.strict_json import JsonField
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
    FOLDERS = "folders"


class ExportFormat(StrEnum):
    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    FOLDERS = "folders"


class ClassRules(Wish):
    """How the archive's classes become the dataset's; a class may stand in one of the rules only."""

    merge: dict[NewClassName, Annotated[list[ClassName], Field(max_length=1000)]] = Field(
        default_factory=dict, max_length=1000
    )
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
    """`auto` looks for COCO, YOLO and Pascal VOC, in this order, and then for `folders`: one per class, for
    classifiers."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.2
    """How much of `train` becomes `val` when the archive has no validation split; stratified."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Of that cut."""
    classes: Annotated[Json[ClassRules], JsonField] | None = None
    """JSON: `{"merge": {"vehicle": ["car", "van"]}, "rename": {"rbc": "red cell"}, "drop": ["other"]}`."""


class DatasetPatch(Wish):
    model_config = example(name="blood cells, cleaned")

    name: Name
    """The new name."""


class SplitCounts(Shape):
    images: int
    """Pictures, also those without boxes."""
    boxes: int
    """Boxes in them."""
    crowds: int = 0
    """How many of these mark a crowd, and no single object."""


class DatasetFailure(Shape):
    """Why the archive was rejected."""

    code: str
    """Stable; docs/errors.md explains it."""
    message: str
    """What was looked for and what was seen."""


class DatasetRead(Shape):
    """A dataset; immutable once it is `ready`."""

    model_config = example(
        id=EXAMPLE_ID,
        name="blood cells",
        status="ready",
        requested_format="auto",
        format="voc",
        classes=["Platelets", "RBC", "WBC"],
        splits={
            "train": {"images": 205, "boxes": 2789, "crowds": 0},
            "val": {"images": 87, "boxes": 1166, "crowds": 0},
        },
        attributes={"colour": {"blue": {"train": 310, "val": 92}, "red": {"train": 1704, "val": 731}}},
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
    """For all calls about it."""
    name: str
    """As it was given, or made of the file's name."""
    status: DatasetStatus
    """Only a `ready` one can be trained on."""
    requested_format: str
    """`auto`, or the one that was asked for."""
    format: str | None
    """The format that was found; null while importing."""
    classes: list[str]
    """In the order of their ids."""
    splits: dict[Split, SplitCounts]
    """What lies in `train`, `val` and `test`."""
    attributes: dict[str, dict[str, dict[Split, int]]]
    """What boxes say besides their class: attribute → value → how many boxes of each split have it."""
    options: dict[str, Any]
    """What was chosen about the import."""
    sha256: str
    """Of the uploaded archive."""
    size_bytes: int
    """Of the uploaded archive."""
    job_id: str | None
    """The import; null when that job was deleted."""
    failure: DatasetFailure | None
    """Only when `rejected`."""
    created_at: datetime
    """When it was uploaded."""
    updated_at: datetime
    """When something about it changed last."""
    links: Links
    """Where to go on, as far as there is something."""


class FindingRead(Shape):
    """One problem in one place, and what was done about it."""

    code: str
    """The kind of problem; stable."""
    severity: Severity
    """How much it matters."""
    action: Action
    """What was done about it."""
    file: str
    """In the archive."""
    where: str = ""
    """Line, annotation or element in that file."""
    message: str
    """What is wrong, in words."""
    image_id: str = ""
    """The picture it is about, when there is one."""


class ReportRead(Shape):
    """Everything that was noticed in the archive."""

    model_config = example(
        status="ready",
        counts={"box_empty": 1},
        findings=[
            {
                "code": "box_empty",
                "severity": "warning",
                "action": "dropped",
                "file": "labels/002.txt",
                "where": "line 3",
                "message": "the box has no area",
                "image_id": "im002",
            }
        ],
    )

    status: DatasetStatus
    """Of the dataset."""
    counts: dict[str, int]
    """How often each code was found; findings beyond the limit are only counted."""
    findings: list[FindingRead]
    """In the order of the archive."""


class BoxRead(Shape):
    label: str
    """The class by name."""
    class_id: int
    """Its index in `classes`."""
    x1: float
    """Left edge."""
    y1: float
    """Top edge."""
    x2: float
    """Right edge."""
    y2: float
    """Bottom edge."""
    crowd: bool = False
    """It holds many objects; evaluation neither wants nor punishes detections there."""
    difficult: bool = False
    """Its annotator found it hard to see; it is kept."""
    attributes: dict[str, str] = Field(default_factory=dict)
    """What else the labels say about it."""


class ImageRead(Shape):
    """One picture with its boxes, in pixels of the picture as a person sees it."""

    model_config = example(
        id="im002",
        file_name="photos/002.jpg",
        width=640,
        height=480,
        split="train",
        boxes=[{"label": "RBC", "class_id": 1, "x1": 12.0, "y1": 30.5, "x2": 118.0, "y2": 141.0}],
        findings=["box_empty"],
        links={"image": f"/datasets/{EXAMPLE_ID}/images/im002"},
    )

    id: str
    """For the picture itself."""
    file_name: str
    """In the archive."""
    width: int
    """Pixels, EXIF orientation applied."""
    height: int
    """Pixels, EXIF orientation applied."""
    split: Split
    """`train`, `val` or `test`."""
    boxes: list[BoxRead]
    """What is labelled in it."""
    findings: list[str]
    """Codes of what was noticed about this picture."""
    links: Links
    """The picture, as it is and with its boxes drawn."""


class SplitNumbers(Shape):
    """One number per split."""

    train: int
    """In `train`."""
    val: int
    """In `val`."""
    test: int
    """In `test`."""


class ClassNumbers(Shape):
    name: str
    """Of the class."""
    boxes: SplitNumbers
    """Its boxes."""
    images: SplitNumbers
    """Pictures that show it."""


class Histogram(Shape):
    """Counts between edges; the last edge may be null, which is without end."""

    edges: list[float | None]
    """One more than there are counts."""
    counts: list[int]
    """How many lie between an edge and the next."""


class AreaNumbers(Shape):
    """Boxes by COCO's borders: below 32², below 96², and above, in square pixels."""

    small: int
    """Below 32²."""
    medium: int
    """From 32² to 96²."""
    large: int
    """96² and more."""


class ImageSizeNumbers(Shape):
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    images: int
    """How many are of this size."""


class StatisticsRead(Shape):
    """What the dataset is made of, counted."""

    model_config = example(
        images={"train": 3, "val": 1, "test": 0},
        boxes={"train": 4, "val": 1, "test": 0},
        images_without_boxes={"train": 1, "val": 0, "test": 0},
        classes=[
            {
                "name": "RBC",
                "boxes": {"train": 4, "val": 1, "test": 0},
                "images": {"train": 2, "val": 1, "test": 0},
            }
        ],
        box_sides={"edges": [0.0, 0.1, 0.2, None], "counts": [1, 3, 1]},
        box_areas={"small": 1, "medium": 3, "large": 1},
        aspect_ratios={"edges": [0.0, 0.5, 2.0, None], "counts": [0, 5, 0]},
        boxes_per_image={"edges": [0, 1, 2, None], "counts": [1, 1, 2]},
        centres=[[0, 2], [2, 1]],
        image_sizes=[{"width": 640, "height": 480, "images": 4}],
    )

    images: SplitNumbers
    """All pictures."""
    boxes: SplitNumbers
    """All boxes."""
    images_without_boxes: SplitNumbers
    """Pictures in which nothing is labelled."""
    classes: list[ClassNumbers]
    """In the order of their ids."""
    box_sides: Histogram
    """Of √(box area / picture area)."""
    box_areas: AreaNumbers
    """By COCO's borders."""
    aspect_ratios: Histogram
    """Of width / height."""
    boxes_per_image: Histogram
    """Of the number of boxes in a picture."""
    centres: list[list[int]]
    """A square grid over the picture, rows from the top: how many boxes have their centre there."""
    image_sizes: list[ImageSizeNumbers]
    """The most frequent ones."""
