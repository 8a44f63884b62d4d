"""From an unpacked archive to a dataset: labels read, every picture opened, every fault listed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from detection.data.attributes import report_left_out
from detection.data.box_cleaning import clean_boxes
from detection.data.class_names import report_similar
from detection.data.class_rules import ClassRules
from detection.data.file_tree import FileTree
from detection.data.finding_log import FindingCode, FindingLog
from detection.data.findings import Finding, Severity
from detection.data.formats import FORMATS, LAST_RESORT, DatasetFormat
from detection.data.formats.dataset_format import LabelledDataset, LabelledImage
from detection.data.records import DatasetRecord, ImageRecord, Split
from detection.data.validation_cut import cut_validation
from detection.data.wording import counted
from detection.errors import (
    DamagedImageError,
    DatasetFormatError,
    ImageError,
    ImageTooLargeError,
    UnsupportedImageError,
)
from detection.images import MAX_PIXELS, decode_image

AUTO = "auto"
MAX_PICTURE_BYTES = 256 * 1024**2
MOST_THREADS = 4
"""OpenCV decodes without Python's lock; more would only cost memory."""

Progress = Callable[[float], None]
"""Is told the fraction of the pictures that were opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedDataset:
    """A dataset and what was wrong with its archive."""

    dataset: DatasetRecord
    findings: list[Finding]
    """In the order in which they were made, at most `MAX_PER_CODE` of a kind."""
    finding_counts: dict[str, int]
    """How often each code was found, all of them."""
    paths: dict[str, Path]
    """Where each picture lies, by its id."""


def read_dataset(
    root: Path,
    *,
    format: str = AUTO,  # noqa: A002 the word of the API
    class_rules: ClassRules | None = None,
    validation_fraction: float = 0.2,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    log: FindingLog | None = None,
) -> ImportedDataset:
    """Read the dataset below `root`.

    Splits of the archive are kept; without `val`, it is cut from `train`. Pictures without labels stay as
    negatives. What is damaged is dropped and listed.

    Args:
        format: a name of `FORMATS`, or `auto`.
        validation_fraction: share of the training pictures that become validation when there is none.
        max_pixels: larger pictures are dropped.
        log: takes the findings; whoever gives one has them also when the dataset is refused.

    Raises:
        UnknownNameError: there is no such format.
        ConfigError: the class rules do not fit the dataset.
        DatasetFormatError: nothing usable was found, or more classes than there may be; says what was looked
            for and what was seen.
    """
    tree = FileTree(root)
    log = log or FindingLog()
    chosen = _choose_format(tree, format)
    labelled = chosen.read(tree, log)
    report_similar(labelled.classes, log)
    targets = (class_rules or ClassRules()).targets(labelled.classes)
    _report_dropped(labelled, targets, log)
    classes = list(dict.fromkeys(name for name in targets.values() if name is not None))
    new_ids = {name: class_id for class_id, name in enumerate(classes)}
    class_ids = {old: new_ids[new] for old, new in targets.items() if new is not None}
    opened = list(_open_pictures(tree, labelled, max_pixels, log, progress or (lambda _: None)))
    images = [_record(picture, number, class_ids, log) for number, picture in enumerate(opened, start=1)]
    _check_usable(tree, labelled, images, log)
    _report_duplicates(images, log)
    images = _with_validation(images, validation_fraction, seed, log)
    dataset = DatasetRecord(format=chosen.name, classes=tuple(classes), images=tuple(images))
    _report_empty_classes(dataset, log)
    report_left_out(dataset, log)
    paths = {image.id: tree.path(image.file_name) for image in images}
    return ImportedDataset(
        dataset=dataset, findings=log.findings, finding_counts=dict(log.counts), paths=paths
    )


def _choose_format(tree: FileTree, name: str) -> DatasetFormat:
    candidates = [FORMATS[each] for each in FORMATS] if name == AUTO else [FORMATS[name]]
    evidence = {candidate.name: candidate.detect(tree) for candidate in candidates}

    def rank(candidate: DatasetFormat) -> tuple[bool, bool, int]:
        num_labels = evidence[candidate.name].num_labels
        return num_labels > 0, candidate.name != LAST_RESORT, num_labels

    best = max(candidates, key=rank)
    found = evidence[best.name]
    if found.num_labels == 0 and (name == AUTO or found.if_asked == 0):
        looked_for = "; ".join(f"{each.name}: {each.looked_for}" for each in candidates)
        seen = "; ".join(f"{each.name}: {evidence[each.name].seen}" for each in candidates)
        problem = f"no labels were found. Looked for {looked_for}. Seen: {tree.summary()}; {seen}"
        raise DatasetFormatError("", "", problem)
    return best


@dataclass(frozen=True, slots=True)
class _OpenedPicture:
    labels: LabelledImage
    size_wh: tuple[int, int]
    sha256: str


def _open_pictures(
    tree: FileTree, labelled: LabelledDataset, max_pixels: int, log: FindingLog, progress: Progress
) -> Iterator[_OpenedPicture]:
    """Yield the pictures that can be decoded, by name; the others become findings."""
    images = sorted(labelled.images, key=lambda image: image.file_name)

    def open_picture(image: LabelledImage) -> _OpenedPicture | ImageError:
        try:
            return _open_picture(tree.path(image.file_name), image, max_pixels)
        except ImageError as error:
            return error

    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS))
    try:
        results = pool.map(open_picture, images)
        for number, (image, result) in enumerate(zip(images, results, strict=True), start=1):
            progress(number / len(images))
            if isinstance(result, ImageError):
                log.add(_picture_code(result), image.file_name, str(result))
            else:
                yield result
    finally:  # whoever ends the import through `progress` does not wait for the pictures that are left
        pool.shutdown(cancel_futures=True)


def _open_picture(path: Path, image: LabelledImage, max_pixels: int) -> _OpenedPicture:
    size_bytes = path.stat().st_size
    if size_bytes > MAX_PICTURE_BYTES:
        raise ImageTooLargeError(
            f"the picture has {counted(size_bytes, 'byte')}; at most {MAX_PICTURE_BYTES:,} are read"
        )
    data = path.read_bytes()
    decoded = decode_image(data, max_pixels=max_pixels, input_size_hw=(1, 1))  # reduced: only faults matter
    return _OpenedPicture(image, decoded.size_wh, hashlib.sha256(data).hexdigest())


def _picture_code(error: ImageError) -> FindingCode:
    if isinstance(error, UnsupportedImageError):
        return FindingCode.IMAGE_UNSUPPORTED
    if isinstance(error, ImageTooLargeError):
        return FindingCode.IMAGE_TOO_LARGE
    assert isinstance(error, DamagedImageError)
    return FindingCode.IMAGE_DAMAGED


def _record(picture: _OpenedPicture, number: int, class_ids: dict[str, int], log: FindingLog) -> ImageRecord:
    labels, image_id = picture.labels, f"{number:06d}"
    width, height = picture.size_wh
    if labels.stated_size_wh not in (None, picture.size_wh):
        stated = "×".join(map(str, labels.stated_size_wh or ()))
        message = (
            f"the labels say {stated} pixels, the picture has {width}×{height}; boxes are taken as they are"
        )
        log.add(FindingCode.IMAGE_SIZE_MISMATCH, labels.label_file, message, image_id=image_id)
    if not labels.label_file:
        message = "no labels belong to it: it is kept as a picture without objects"
        log.add(FindingCode.IMAGE_UNLABELLED, labels.file_name, message, image_id=image_id)
    return ImageRecord(
        id=image_id,
        file_name=labels.file_name,
        width=width,
        height=height,
        split=labels.split or Split.TRAIN,
        boxes=clean_boxes(labels, picture.size_wh, class_ids, log, image_id=image_id),
        sha256=picture.sha256,
    )


def _check_usable(
    tree: FileTree, labelled: LabelledDataset, images: list[ImageRecord], log: FindingLog
) -> None:
    if any(image.boxes for image in images):
        return
    found = ", ".join(f"{count:,} × {code}" for code, count in log.counts.most_common(5))
    what = "box" if images else "picture"
    problem = (
        f"no usable {what} is left. Looked for at least one picture that opens, with a box inside it. Seen: "
        f"{tree.summary()}; {counted(len(labelled.images), 'labelled picture')}, "
        f"{len(images):,} of them usable; findings: {found or 'none'}"
    )
    raise DatasetFormatError("", "", problem)


def _report_dropped(labelled: LabelledDataset, targets: dict[str, str | None], log: FindingLog) -> None:
    counts = Counter(box.class_name for image in labelled.images for box in image.boxes)
    for name, target in targets.items():
        if target is None:
            boxes = counted(counts[name], "box", "boxes")
            log.add(FindingCode.CLASS_DROPPED, "", f"left out as asked: {name!r} with {boxes}")


def _report_duplicates(images: list[ImageRecord], log: FindingLog) -> None:
    """Copies in two splits make a validation look better than it is; in one split they do little harm."""
    first: dict[str, ImageRecord] = {}
    for image in images:
        earlier = first.setdefault(image.sha256, image)
        if earlier is image:
            continue
        across = earlier.split is not image.split
        severity = Severity.WARNING if across else Severity.INFO
        message = f"it is the same picture as {earlier.file_name} in {earlier.split.value}"
        log.add(FindingCode.IMAGE_DUPLICATE, image.file_name, message, image_id=image.id, severity=severity)


def _with_validation(
    images: list[ImageRecord], fraction: float, seed: int, log: FindingLog
) -> list[ImageRecord]:
    if any(image.split is Split.VAL for image in images):
        return images
    num_train = sum(image.split is Split.TRAIN for image in images)
    cut = cut_validation(images, fraction, seed)
    num_val = sum(image.split is Split.VAL for image in cut)
    if num_val:
        message = (
            f"the archive has no validation split: it got {num_val:,} of "
            f"{counted(num_train, 'training picture')}"
        )
        log.add(FindingCode.VALIDATION_CUT, "", message)
    return cut


def _report_empty_classes(dataset: DatasetRecord, log: FindingLog) -> None:
    counts: dict[int, int] = defaultdict(int)
    for image in dataset.images:
        for box in image.boxes:
            counts[box.class_id] += 1
    for class_id, name in enumerate(dataset.classes):
        if not counts[class_id]:
            log.add(FindingCode.CLASS_WITHOUT_BOXES, "", f"no box is labelled {name!r}")
