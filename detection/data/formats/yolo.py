"""YOLO: a text file per picture, a data.yaml with the names.

A row is `class cx cy w h` in fractions of the picture's size. A label file stands where its picture does, or
in the folder `labels` that mirrors `images`. Splits come from data.yaml, from lists of pictures (train.txt)
or from folders. Paths are matched inside the archive only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from detection.data.formats.yolo_rows import RowReader, parse_row
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.data.splits import split_of_folders, split_of_stem
from detection.data.wording import counted
from detection.errors import DatasetFormatError

MAX_LABEL_BYTES = 16 * 1024**2
MAX_LIST_BYTES = 256 * 1024**2
HEAD_BYTES = 4096


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
        return Evidence(count, f"{counted(count, 'picture')} with a YOLO label file")

    def read(self, tree: FileTree, log: FindingLog) -> LabelledDataset:
        config = find_config(tree, log)
        splits = _splits(tree, config, log)
        if not splits:
            problem = f"there are no {self.looked_for}. Seen: {tree.summary()}"
            raise DatasetFormatError("", "", problem)
        reader = RowReader(config, log)
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


def _splits(tree: FileTree, config: YoloConfig, log: FindingLog) -> dict[str, Split | None]:
    """Return the pictures of the dataset with their splits: as configured, as listed, or by folder."""
    splits: dict[str, Split | None] = {}
    for split, place in _found_places(tree, config, log):
        for picture in _pictures_at(tree, place, split, log):
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


def _found_places(tree: FileTree, config: YoloConfig, log: FindingLog) -> list[tuple[Split, str]]:
    """Return the folders and lists that the configuration means, each once however often it is named."""
    found = dict[tuple[Split, str], None]()
    for split, wanted in config.places or tuple(_list_files(tree)):
        place = _find_place(tree, wanted, config.file, split)
        if place is None:
            message = f"nothing in the archive is what it calls {wanted} ({split.value})"
            log.add(FindingCode.SPLIT_MISSING, config.file, message)
        else:
            found[split, place] = None
    return list(found)


def _list_files(tree: FileTree) -> Iterator[tuple[Split, str]]:
    """Find train.txt and the like: lists of pictures outside of the label folders."""
    for name in tree.with_suffix(".txt"):
        split = split_of_stem(stem_of(name))
        if split is not None and _label_picture(tree, name) is None and _holds_pictures(tree, name):
            yield split, name


def _find_place(tree: FileTree, place: str, config_file: str, split: Split) -> str | None:
    """Return the list of pictures, or the folder, that a configuration means."""
    if place.strip().casefold().endswith(".txt"):
        return tree.find_file(place, near=config_file)
    return tree.find_folder(place, near=config_file, split=split)


def _pictures_at(tree: FileTree, place: str, split: Split, log: FindingLog) -> Sequence[str]:
    return _listed_pictures(tree, place, split, log) if place in tree else tree.pictures_below(place)


def _listed_pictures(tree: FileTree, list_file: str, split: Split, log: FindingLog) -> list[str]:
    try:
        lines = tree.read_lines(list_file, max_bytes=MAX_LIST_BYTES)
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
            if found := _actual_label(tree, mirrored, picture):
                return found
    return _actual_label(tree, f"{folder_of(picture)}/{label}".lstrip("/"), picture)


def _actual_label(tree: FileTree, label_file: str, picture: str) -> str | None:
    """Find a label file, in other capitals too unless it could then belong to two pictures."""
    if label_file in tree or not tree.has_namesake(picture):
        return tree.actual(label_file)
    return None


def _label_picture(tree: FileTree, label_file: str) -> str | None:
    return tree.find_picture_by_stem(stem_of(label_file), near=label_file)


def _report_orphans(tree: FileTree, log: FindingLog) -> None:
    """Make a finding for every label file that stands where labels stand, but belongs to no picture."""
    owned = {_label_file(tree, picture) for picture in tree.pictures}
    beside = {folder_of(picture) for picture in tree.pictures}
    for name in tree.with_suffix(".txt"):
        folder = folder_of(name)
        stands_right = folder in beside or "labels" in folder.casefold().split("/")
        if stands_right and name not in owned and _holds_rows(tree, name):
            message = f"no picture belongs to these labels; {stem_of(name)}.jpg or the like is expected"
            log.add(FindingCode.IMAGE_MISSING, name, message)


def _holds_rows(tree: FileTree, name: str) -> bool:
    return any(map(_is_row, _first_lines(tree, name)))


def _is_row(line: str) -> bool:
    try:
        parse_row(line)
    except ValueError:
        return False
    return True


def _holds_pictures(tree: FileTree, name: str) -> bool:
    return any(tree.find_picture(line, near=name) is not None for line in _first_lines(tree, name)[:5])


def _first_lines(tree: FileTree, name: str) -> list[str]:
    with tree.path(name).open("rb") as file:
        return file.read(HEAD_BYTES).decode("utf-8", "replace").lstrip("\ufeff").splitlines()


def _read_image(
    tree: FileTree, picture: str, split: Split | None, reader: RowReader, log: FindingLog
) -> LabelledImage | None:
    label_file = _label_file(tree, picture)
    boxes: list[LabelledBox] = []
    if label_file is not None:
        try:
            lines = tree.read_lines(label_file, max_bytes=MAX_LABEL_BYTES)
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
