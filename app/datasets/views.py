"""What users see of a dataset's contents: the report, pages of pictures, one picture with its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.api.pagination import Paging, encode_cursor, strange_cursor
from app.database.tables import Dataset
from app.datasets.contents import Contents, DatasetContents, Report
from app.datasets.schemas import BoxRead, DatasetFailure, DatasetStatus, ImageRead
from app.detect.wire import Box
from app.errors import DatasetNotReadyError, InvalidInputError, NotFoundError, Problem
from detection.data.findings import Action, Finding, Severity
from detection.data.records import BoxRecord, ImageRecord, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFilter:
    """Which pictures are wanted; None is all."""

    split: Split | None = None
    class_name: str | None = None
    finding: str | None = None


def report_of(dataset: Dataset, failure: DatasetFailure | None, contents: DatasetContents) -> Report:
    """Return what was noticed; of an archive that was never opened, why that was so."""
    if dataset.status == DatasetStatus.IMPORTING:
        raise DatasetNotReadyError("the dataset is still being imported; follow its job")
    if dataset.storage_prefix is not None:
        try:
            return contents.report(dataset.storage_prefix)
        except FileNotFoundError:
            pass  # its import ended before it could say more than why
    if failure is None:
        return Report(findings=[], counts={})
    rejected = Finding(
        code=failure.code,
        severity=Severity.ERROR,
        action=Action.DROPPED,
        file="",
        message=failure.message,
    )
    return Report(findings=[rejected], counts={failure.code: 1})


def page_of_images(
    contents: Contents, dataset_id: str, wanted: ImageFilter, paging: Paging
) -> tuple[list[ImageRead], str | None]:
    """Return one page of pictures in the dataset's own order, and the cursor of the next page."""
    start = _position(paging)
    class_id = _class_id(contents, wanted.class_name)
    found: list[ImageRead] = []
    for index in range(start, len(contents.dataset.images)):
        image = contents.dataset.images[index]
        if not _matches(image, contents, wanted, class_id):
            continue
        if len(found) == paging.limit:
            return found, encode_cursor(str(index))
        found.append(read_image(contents, dataset_id, image))
    return found, None


def find_image(contents: Contents, image_id: str) -> ImageRecord:
    image = contents.images.get(image_id)
    if image is None:
        raise NotFoundError(f"the dataset has no picture {image_id}")
    return image


def read_image(contents: Contents, dataset_id: str, image: ImageRecord) -> ImageRead:
    here = f"/datasets/{dataset_id}/images/{image.id}"
    return ImageRead(
        id=image.id,
        file_name=image.file_name,
        width=image.width,
        height=image.height,
        split=image.split,
        boxes=[_read_box(box, contents.dataset.classes) for box in image.boxes],
        findings=contents.codes.get(image.id, []),
        links={"image": here, "with_boxes": f"{here}?boxes=true"},
    )


def boxes_to_draw(contents: Contents, image: ImageRecord) -> tuple[Box, ...]:
    classes = contents.dataset.classes
    return tuple(
        Box(box.x1, box.y1, box.x2, box.y2, box.class_id, classes[box.class_id]) for box in image.boxes
    )


def _read_box(box: BoxRecord, classes: Sequence[str]) -> BoxRead:
    return BoxRead(
        label=classes[box.class_id],
        class_id=box.class_id,
        x1=box.x1,
        y1=box.y1,
        x2=box.x2,
        y2=box.y2,
        crowd=box.crowd,
        difficult=box.difficult,
        attributes=dict(box.attributes),
    )


def _position(paging: Paging) -> int:
    if paging.after is None:
        return 0
    if not paging.after.isdecimal() or len(paging.after) > 12:
        raise strange_cursor()
    return int(paging.after)


def _class_id(contents: Contents, name: str | None) -> int | None:
    if name is None:
        return None
    if name not in contents.dataset.classes:
        known = ", ".join(contents.dataset.classes[:20])
        fault = Problem(place="query", pointer="/class", problem=f"the dataset has no class {name!r}")
        raise InvalidInputError(f"{fault.problem}; it has: {known}", problems=[fault])
    return contents.dataset.classes.index(name)


def _matches(image: ImageRecord, contents: Contents, wanted: ImageFilter, class_id: int | None) -> bool:
    return (
        (wanted.split is None or image.split == wanted.split)
        and (class_id is None or any(box.class_id == class_id for box in image.boxes))
        and (wanted.finding is None or wanted.finding in contents.codes.get(image.id, []))
    )
