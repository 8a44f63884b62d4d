"""YOLO: a text file per picture, a data.yaml with the names.

A row is `class cx cy w h` in fractions of the picture's size. A label file stands where its picture does, or
in the folder `labels` that mirrors `images`. Splits come from data.yaml, from lists of pictures (train.txt)
or from folders. Paths are matched inside the archive only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import yaml

from detection.data.file_tree import FileTree, folder_of, stem_of
from detection.data.finding_log import FindingCode, FindingLog
from detection.data.formats.dataset_format import (
    Evidence,
    ExportedFile,
    LabelledBox,
    LabelledDataset,
    LabelledImage,
    ReadPicture,
)
from detection.data.formats.export_names import export_names, split_name
from detection.data.formats.yolo_config import YoloConfig, find_config
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.data.splits import split_of_folders, split_of_stem
from detection.errors import DatasetFormatError

MAX_LABEL_BYTES = 16 * 1024**2
MAX_LIST_BYTES = 256 * 1024**2
HEAD_BYTES = 4096
MOST_CLASSES_WITHOUT_NAMES = 1000
LARGEST_FRACTION = 1.5
"""Rounding and sloppy drawing lead a little outside the picture; beyond this the numbers are pixels."""


class YoloFormat:
    """Reads and writes YOLO."""

    name: ClassVar[str] = "yolo"
    looked_for: ClassVar[str] = (
        "text files with `class cx cy w h` per line, in `labels` or beside the pictures"
    )

    def detect(self, tree: FileTree) -> Evidence:
        count = sum(
            label_file is not None and _holds_rows(tree, label_file)
            for label_file in (_label_file(tree, picture) for picture in tree.pictures)
        )
        return Evidence(count, f"{count} pictures with a YOLO label file")

    def read(self, tree: FileTree, log: FindingLog) -> LabelledDataset:
        config = find_config(tree, log)
        splits = _splits(tree, config, log)
        if not splits:
            raise DatasetFormatError(tree.root.name, "", f"there are no {self.looked_for}")
        reader = _RowReader(config, log)
        images = [_read_image(tree, picture, split, reader, log) for picture, split in splits.items()]
        _report_orphans(tree, log)
        return LabelledDataset(reader.classes(), [image for image in images if image is not None])

    def write(self, dataset: DatasetRecord, read_picture: ReadPicture) -> Iterator[ExportedFile]:
        """Crowd regions and `difficult` are left out: the format has no word for them."""
        names = export_names(dataset)
        yield ExportedFile("data.yaml", _data_yaml(dataset).encode())
        for image in dataset.images:
            name = split_name(image, names)
            rows = "".join(_row(box, image) for box in image.boxes if not box.crowd)
            yield ExportedFile(f"labels/{folder_of(name)}/{stem_of(name)}.txt", rows.encode())
            yield ExportedFile(f"images/{name}", read_picture(image))


class _RowReader:
    """Turns rows into boxes; collects the classes that are met when there are no names."""

    def __init__(self, config: YoloConfig, log: FindingLog) -> None:
        self._names = config.names
        self._met: set[int] = set()
        self._log = log
        if config.names is None:
            message = (
                "no data.yaml, classes.txt or obj.names gives the class names; they are called class_0, …"
            )
            log.add(FindingCode.CLASS_NAMES_MISSING, config.file, message)

    def classes(self) -> list[str]:
        if self._names is None:
            return [f"class_{number}" for number in sorted(self._met)]
        return list(dict.fromkeys(name for _, name in sorted(self._names.items())))

    def boxes(self, lines: list[str], file: str) -> list[LabelledBox]:
        boxes, num_polygons = [], 0
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                class_id, numbers = _parse_row(line)
            except ValueError as error:
                self._log.add(FindingCode.LABEL_INVALID, file, str(error), where=where)
                continue
            class_name = self._class_name(class_id)
            if class_name is None:
                known = f"one of 0 to {max(self._names or [MOST_CLASSES_WITHOUT_NAMES - 1])}"
                message = f"class {class_id} is not {known}"
                self._log.add(FindingCode.CLASS_UNKNOWN, file, message, where=where)
                continue
            num_polygons += len(numbers) > 4
            x1, y1, x2, y2 = _edges(numbers)
            boxes.append(LabelledBox(class_name=class_name, x1=x1, y1=y1, x2=x2, y2=y2, where=where))
        if num_polygons:
            message = f"{num_polygons} polygons became the boxes around them"
            self._log.add(FindingCode.LABEL_POLYGON, file, message)
        return boxes

    def _class_name(self, class_id: int) -> str | None:
        if self._names is not None:
            return self._names.get(class_id)
        if not 0 <= class_id < MOST_CLASSES_WITHOUT_NAMES:
            return None
        self._met.add(class_id)
        return f"class_{class_id}"


def _parse_row(line: str) -> tuple[int, list[float]]:
    """Return class and coordinates of a box or a polygon; ValueError says what was expected."""
    class_text, *texts = line.split()
    if len(texts) != 4 and (len(texts) < 6 or len(texts) % 2):
        raise ValueError(f"expected `class cx cy w h`, not {len(texts) + 1} columns")
    try:
        class_number = float(class_text)
        numbers = [float(text) for text in texts]
    except ValueError:
        raise ValueError("expected numbers: `class cx cy w h`") from None
    if not class_number.is_integer():
        raise ValueError(f"the class must be a whole number, not {class_text[:40]}")
    if any(math.isfinite(number) and abs(number) > LARGEST_FRACTION for number in numbers):
        raise ValueError("coordinates must be fractions of the picture's size, from 0 to 1")
    return int(class_number), numbers


def _edges(numbers: list[float]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a box given by its centre, or around a polygon."""
    if len(numbers) == 4:
        cx, cy, width, height = numbers
        return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    xs, ys = numbers[0::2], numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _splits(tree: FileTree, config: YoloConfig, log: FindingLog) -> dict[str, Split | None]:
    """Return the pictures of the dataset with their splits: as configured, as listed, or by folder."""
    places = config.places or tuple(_list_files(tree))
    splits: dict[str, Split | None] = {}
    for split, place in places:
        pictures = _pictures_at(tree, place, config.file, split, log)
        if pictures is None:
            message = f"nothing in the archive is what it calls {place} ({split.value})"
            log.add(FindingCode.SPLIT_MISSING, config.file, message)
            continue
        for picture in pictures:
            earlier = splits.setdefault(picture, split)
            if earlier is not split and earlier is not None:
                message = f"it is in {earlier.value} already, where it stays, and again in {split.value}"
                log.add(FindingCode.SPLIT_CONFLICT, picture, message)
    if not splits:
        return {picture: split_of_folders(picture) for picture in _pictures_with_labels(tree)}
    for picture in tree.pictures:
        if picture not in splits:
            log.add(FindingCode.IMAGE_UNLISTED, picture, f"no split of {config.file or 'the lists'} holds it")
    return splits


def _list_files(tree: FileTree) -> Iterator[tuple[Split, str]]:
    """Find train.txt and the like: lists of pictures outside of the label folders."""
    for name in tree.with_suffix(".txt"):
        split = split_of_stem(stem_of(name))
        if split is not None and _label_picture(tree, name) is None and _holds_pictures(tree, name):
            yield split, name


def _pictures_at(
    tree: FileTree, place: str, config_file: str, split: Split, log: FindingLog
) -> list[str] | None:
    if place.strip().casefold().endswith(".txt"):
        list_file = tree.find_file(place, near=config_file)
        return None if list_file is None else _listed_pictures(tree, list_file, split, log)
    folder = tree.find_folder(place, near=config_file, split=split)
    if folder is None:
        return None
    return [name for name in tree.pictures if name.startswith(f"{folder}/") or not folder]


def _listed_pictures(tree: FileTree, list_file: str, split: Split, log: FindingLog) -> list[str]:
    try:
        lines = tree.read_text(list_file, max_bytes=MAX_LIST_BYTES).splitlines()
    except DatasetFormatError as error:
        log.add(FindingCode.LABEL_FILE_INVALID, list_file, error.problem)
        return []
    pictures = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        picture = tree.find_picture(line, near=list_file, split=split)
        if picture is None:
            message = f"{line.strip()[:200]} is not in the archive"
            log.add(FindingCode.IMAGE_MISSING, list_file, message, where=f"line {number}")
        else:
            pictures.append(picture)
    return pictures


def _pictures_with_labels(tree: FileTree) -> list[str]:
    """Pictures with a label file, and those beside them without one: they hold no object."""
    labelled = [picture for picture in tree.pictures if _label_file(tree, picture) is not None]
    folders = {folder_of(picture) for picture in labelled}
    return [picture for picture in tree.pictures if folder_of(picture) in folders]


def _label_file(tree: FileTree, picture: str) -> str | None:
    """Return the label file of a picture: in the mirror folder `labels`, or beside it."""
    label = f"{stem_of(picture)}.txt"
    folders = folder_of(picture).split("/")
    for depth in reversed(range(len(folders))):
        if folders[depth].casefold() == "images":
            mirrored = "/".join([*folders[:depth], "labels", *folders[depth + 1 :], label])
            if mirrored in tree:
                return mirrored
    beside = f"{folder_of(picture)}/{label}".lstrip("/")
    return beside if beside in tree else None


def _label_picture(tree: FileTree, label_file: str) -> str | None:
    return tree.find_picture_by_stem(stem_of(label_file), near=label_file)


def _report_orphans(tree: FileTree, log: FindingLog) -> None:
    for name in tree.with_suffix(".txt"):
        in_labels = "labels" in folder_of(name).split("/")
        if in_labels and _label_picture(tree, name) is None and _holds_rows(tree, name):
            log.add(FindingCode.IMAGE_MISSING, name, f"there is no picture named {stem_of(name)}")


def _holds_rows(tree: FileTree, name: str) -> bool:
    return any(map(_is_row, _first_lines(tree, name)))


def _is_row(line: str) -> bool:
    try:
        _parse_row(line)
    except ValueError:
        return False
    return True


def _holds_pictures(tree: FileTree, name: str) -> bool:
    return any(tree.find_picture(line, near=name) is not None for line in _first_lines(tree, name)[:5])


def _first_lines(tree: FileTree, name: str) -> list[str]:
    with tree.path(name).open("rb") as file:
        return file.read(HEAD_BYTES).decode("utf-8", "replace").lstrip("\ufeff").splitlines()


def _read_image(
    tree: FileTree, picture: str, split: Split | None, reader: _RowReader, log: FindingLog
) -> LabelledImage | None:
    label_file = _label_file(tree, picture)
    boxes: list[LabelledBox] = []
    if label_file is not None:
        try:
            lines = tree.read_text(label_file, max_bytes=MAX_LABEL_BYTES).splitlines()
            boxes = reader.boxes(lines, label_file)
        except DatasetFormatError as error:
            log.add(FindingCode.LABEL_FILE_INVALID, label_file, error.problem)
            return None
    return LabelledImage(
        file_name=picture, split=split, boxes=boxes, label_file=label_file or "", relative=True
    )


def _data_yaml(dataset: DatasetRecord) -> str:
    places = {split.value: f"images/{split.value}" for split in Split if dataset.of_split(split)}
    content = {"path": ".", **places, "names": dict(enumerate(dataset.classes))}
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False)


def _row(box: BoxRecord, image: ImageRecord) -> str:
    cx, cy = (box.x1 + box.x2) / 2 / image.width, (box.y1 + box.y2) / 2 / image.height
    width, height = (box.x2 - box.x1) / image.width, (box.y2 - box.y1) / image.height
    return f"{box.class_id} {cx:.12g} {cy:.12g} {width:.12g} {height:.12g}\n"
