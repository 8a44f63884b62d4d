"""COCO: JSON files with images, annotations and categories.

A box is x, y, width and height in pixels. Several files are several splits, told by their names or folders;
segmentations are not read, crowd regions stay crowd regions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from detection.data.class_names import clean_class_name
from detection.data.file_tree import FileTree, folder_of
from detection.data.finding_log import FindingCode, FindingLog
from detection.data.formats.coco_json import (
    Annotation,
    Category,
    Document,
    Image,
    Item,
    Items,
    LaxDocument,
    id_order,
    id_text,
    is_set,
    load_document,
    parse_items,
)
from detection.data.formats.dataset_format import (
    Evidence,
    ExportedFile,
    LabelledBox,
    LabelledDataset,
    LabelledImage,
    ReadPicture,
)
from detection.data.formats.export_names import export_names, split_name
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.data.splits import split_of_folders, split_of_stem
from detection.errors import DatasetFormatError

MOST_FILES_NAMED = 5


@dataclass(slots=True)
class _File:
    """One annotation file while it is read."""

    name: str
    log: FindingLog
    images: dict[str, LabelledImage] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)

    def add(self, code: FindingCode, message: str, where: str = "") -> None:
        self.log.add(code, self.name, message, where=where)


class CocoFormat:
    """Reads and writes COCO."""

    name: ClassVar[str] = "coco"
    looked_for: ClassVar[str] = "a JSON file with `images`, `annotations` and `categories`"

    def detect(self, tree: FileTree) -> Evidence:
        count, seen = 0, []
        for name, document in _documents(tree, _candidates(tree)):
            if isinstance(document, str):
                seen.append(f"{name}: {document}")
            else:
                count += len(document.images)
                seen.append(f"{name} lists {len(document.images)} pictures")
        return Evidence(count, "; ".join(seen[:MOST_FILES_NAMED]) or "no JSON file")

    def read(self, tree: FileTree, log: FindingLog) -> LabelledDataset:
        classes: dict[str, None] = {}
        images: dict[str, LabelledImage] = {}
        files = _candidates(tree)
        for name in sorted(set(tree.with_suffix(".json")) - set(files)):
            message = "there are files named instances*.json; only they are read"
            log.add(FindingCode.FILE_IGNORED, name, message)
        for name, document in _documents(tree, files):
            if isinstance(document, str):
                log.add(FindingCode.FILE_IGNORED, name, document)
                continue
            file = _read_file(tree, name, document, log)
            classes |= dict.fromkeys(file.classes.values())
            for image in file.images.values():
                _merge(images, image, log)
        if not images:
            problem = f"no usable picture is listed in {self.looked_for}; {self.detect(tree).seen}"
            raise DatasetFormatError(tree.root.name, "", problem)
        for name in sorted(set(tree.pictures) - images.keys()):
            log.add(FindingCode.IMAGE_UNLISTED, name, "no COCO file lists it")
        return LabelledDataset(list(classes), list(images.values()))

    def write(self, dataset: DatasetRecord, read_picture: ReadPicture) -> Iterator[ExportedFile]:
        """The field `difficult`, which COCO does not know, is kept where it is set."""
        names = export_names(dataset)
        for split in Split:
            images = dataset.of_split(split)
            if images:
                content = msgspec.json.encode(_document(dataset, images, names))
                yield ExportedFile(f"annotations/instances_{split.value}.json", content)
        for image in dataset.images:
            yield ExportedFile(f"images/{split_name(image, names)}", read_picture(image))


def _candidates(tree: FileTree) -> list[str]:
    """Return the files to read: beside `instances_*.json`, keypoints and captions repeat the same boxes."""
    files = tree.with_suffix(".json")
    return [name for name in files if name.rsplit("/", 1)[-1].startswith("instances")] or files


def _documents(tree: FileTree, files: list[str]) -> Iterator[tuple[str, Document | LaxDocument | str]]:
    """Yield every file's lists, or the reason why it is not read."""
    for name in files:
        try:
            yield name, load_document(tree, name)
        except DatasetFormatError as error:
            yield name, error.problem


def _read_file(tree: FileTree, name: str, document: Document | LaxDocument, log: FindingLog) -> _File:
    file = _File(name, log)
    _read_categories(file, document.categories)
    images_by_id = _read_images(file, tree, document.images)
    _read_annotations(file, document.annotations, images_by_id)
    return file


def _read_categories(file: _File, items: Items) -> None:
    categories = [item for _, item in _parsed(file, items, Category, "category")]
    seen: set[str] = set()
    for category in sorted(categories, key=lambda category: id_order(category.id)):
        key, name = id_text(category.id), clean_class_name(category.name)
        if key in file.classes:
            file.add(FindingCode.CLASS_DUPLICATE, "the id is used twice; the first counts", f"category {key}")
            continue
        file.classes[key] = name or f"category {key}"
        if name in seen:
            message = f"{name!r} is listed twice and taken as one class"
            file.add(FindingCode.CLASS_DUPLICATE, message, f"category {key}")
        seen.add(name)


def _read_images(file: _File, tree: FileTree, items: Items) -> dict[str, str]:
    """File the pictures that exist; return the name by id, empty for a picture that is missing."""
    names: dict[str, str] = {}
    split = split_of_stem(file.name.rsplit("/", 1)[-1]) or split_of_folders(file.name)
    for _, image in _parsed(file, items, Image, "image"):
        key, where = id_text(image.id), f"image {id_text(image.id)}"
        if key in names:
            file.add(FindingCode.IMAGE_REPEATED, "the id is used twice; the first counts", where)
            continue
        names[key] = ""
        picture = _find_picture(tree, file.name, image.file_name, split)
        if picture is None:
            file.add(FindingCode.IMAGE_MISSING, f"{image.file_name} is not in the archive", where)
            continue
        names[key] = picture
        if picture in file.images:
            file.add(FindingCode.IMAGE_REPEATED, f"{picture} is listed twice; its boxes are united", where)
            continue
        file.images[picture] = LabelledImage(
            file_name=picture,
            split=split or split_of_folders(picture),
            boxes=[],
            label_file=file.name,
            stated_size_wh=_stated_size(image),
        )
    return names


def _read_annotations(file: _File, items: Items, images_by_id: dict[str, str]) -> None:
    seen: Counter[str] = Counter()
    for number, annotation in _parsed(file, items, Annotation, "annotation"):
        own_id = f"number {number}" if annotation.id is None else id_text(annotation.id)
        where = f"annotation {own_id}"
        seen[own_id] += 1
        class_name = file.classes.get(id_text(annotation.category_id))
        picture = images_by_id.get(id_text(annotation.image_id))
        if class_name is None:
            file.add(FindingCode.CLASS_UNKNOWN, f"there is no category {annotation.category_id}", where)
        elif picture is None:
            file.add(FindingCode.LABEL_INVALID, f"there is no image {annotation.image_id}", where)
        elif picture:
            file.images[picture].boxes.append(_box(annotation, class_name, where))
    for own_id, count in seen.items():
        if count > 1:
            message = f"{count} annotations share this id; all are kept"
            file.add(FindingCode.LABEL_ID_DUPLICATE, message, f"annotation {own_id}")


def _box(annotation: Annotation, class_name: str, where: str) -> LabelledBox:
    x, y, width, height = annotation.bbox
    return LabelledBox(
        class_name=class_name,
        x1=x,
        y1=y,
        x2=x + width,
        y2=y + height,
        crowd=is_set(annotation.iscrowd),
        difficult=is_set(annotation.difficult),
        where=where,
    )


def _find_picture(tree: FileTree, label_file: str, file_name: str, split: Split | None) -> str | None:
    beside = f"{folder_of(label_file)}/{file_name}".lstrip("/")
    return beside if beside in tree else tree.find_picture(file_name, near=label_file, split=split)


def _parsed(file: _File, items: Items, kind: type[Item], word: str) -> Iterator[tuple[int, Item]]:
    """Yield number and value of every element that can be read; the others become findings."""
    for number, item in parse_items(items, kind):
        if isinstance(item, str):
            file.add(
                FindingCode.LABEL_INVALID, f"the {word} cannot be read: {item}", f"{word} number {number}"
            )
        else:
            yield number, item


def _merge(images: dict[str, LabelledImage], image: LabelledImage, log: FindingLog) -> None:
    """File a picture; one that another file listed already gets the boxes of both."""
    earlier = images.setdefault(image.file_name, image)
    if earlier is image:
        return
    earlier.boxes.extend(image.boxes)
    if earlier.split is not image.split:
        message = f"{earlier.label_file} lists {image.file_name} for another split, where it stays"
        log.add(FindingCode.SPLIT_CONFLICT, image.label_file, message)


def _stated_size(image: Image) -> tuple[int, int] | None:
    sides = image.width, image.height
    return (int(sides[0]), int(sides[1])) if all(1 <= side < 1e9 for side in sides) else None


def _document(
    dataset: DatasetRecord, images: tuple[ImageRecord, ...], names: dict[str, str]
) -> dict[str, Any]:
    """Category ids count from 1, as everywhere in COCO."""
    boxes = [(number, box) for number, image in enumerate(images, start=1) for box in image.boxes]
    return {
        "info": {"description": "exported by Harrier"},
        "licenses": [],
        "categories": [
            {"id": number, "name": name, "supercategory": ""}
            for number, name in enumerate(dataset.classes, start=1)
        ],
        "images": [
            {"id": number, "file_name": names[image.id], "width": image.width, "height": image.height}
            for number, image in enumerate(images, start=1)
        ],
        "annotations": [
            _annotation(number, image_number, box)
            for number, (image_number, box) in enumerate(boxes, start=1)
        ],
    }


def _annotation(number: int, image_number: int, box: BoxRecord) -> dict[str, Any]:
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": image_number,
        "category_id": box.class_id + 1,
        "bbox": [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1],
        "area": box.area,
        "iscrowd": int(box.crowd),
        "segmentation": [],
    }
    return annotation | {"difficult": 1} if box.difficult else annotation
