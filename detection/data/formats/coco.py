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

from detection.data.attributes import AttributeReader, as_pairs
from detection.data.class_names import ClassNames
from detection.data.file_tree import FileTree, folder_of
from detection.data.finding_log import FindingCode, FindingLog
from detection.data.formats.coco_json import (
    Annotation,
    Category,
    Document,
    Id,
    Image,
    Item,
    Items,
    LaxDocument,
    OtherJsonError,
    id_of,
    id_order,
    id_text,
    is_set,
    load_document,
    parse_annotation,
    parse_items,
    stated_side,
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
from detection.data.wording import counted
from detection.errors import DatasetFormatError

MOST_FILES_NAMED = 5
_EXPECTED = {
    "category": "{id, name}",
    "image": "{id, file_name}",
    "annotation": "{image_id, category_id, bbox: [x, y, width, height]}",
}
"""Of an element, the least that must be there."""


@dataclass(slots=True)
class _File:
    """One annotation file while it is read."""

    name: str
    log: FindingLog
    class_names: ClassNames
    images: dict[str, LabelledImage] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    """By id."""
    pictures: dict[str, str] = field(default_factory=dict)
    """By id, empty for a picture that is missing."""
    text_ids: set[tuple[type[Category | Image], str]] = field(default_factory=set)
    """Ids of categories and pictures that the file itself writes as text."""

    def add(self, code: FindingCode, message: str, where: str = "") -> None:
        self.log.add(code, self.name, message, where=where)


class CocoFormat:
    """Reads and writes COCO."""

    name: ClassVar[str] = "coco"
    looked_for: ClassVar[str] = "a JSON file with `images`, `annotations` and `categories`"

    def detect(self, tree: FileTree) -> Evidence:
        count, seen = 0, []
        for name, document in _documents(tree, _candidates(tree)):
            if isinstance(document, DatasetFormatError | OtherJsonError):
                seen.append(f"{name}: {_problem(document)}")
            else:
                count += len(document.images)
                seen.append(f"{name} lists {counted(len(document.images), 'picture')}")
        return Evidence(count, "; ".join(seen[:MOST_FILES_NAMED]) or "no JSON file")

    def read(self, tree: FileTree, log: FindingLog) -> LabelledDataset:
        class_names, classes = ClassNames(log), dict[str, None]()
        images: dict[str, LabelledImage] = {}
        files = _candidates(tree)
        for name in sorted(set(tree.with_suffix(".json")) - set(files)):
            message = "there are files named instances*.json; only they are read"
            log.add(FindingCode.FILE_IGNORED, name, message)
        for name, document in _documents(tree, files):
            if isinstance(document, DatasetFormatError | OtherJsonError):
                broken = isinstance(document, DatasetFormatError)
                code = FindingCode.LABEL_FILE_INVALID if broken else FindingCode.FILE_IGNORED
                log.add(code, name, _problem(document))
                continue
            file = _File(name, log, class_names)
            _read_file(tree, file, document)
            classes |= dict.fromkeys(file.classes.values())
            for image in file.images.values():
                _merge(images, image, log)
        if not images:
            problem = (
                f"no usable picture is listed. Looked for {self.looked_for}, and the pictures that it names. "
                f"Seen: {tree.summary()}; {self.detect(tree).seen}"
            )
            raise DatasetFormatError("", "", problem)
        for name in sorted(set(tree.pictures) - images.keys()):
            log.add(FindingCode.IMAGE_UNLISTED, name, "no COCO file lists it")
        return LabelledDataset(list(classes), list(images.values()))

    def write(self, dataset: DatasetRecord, read_picture: ReadPicture) -> Iterator[ExportedFile]:
        """The fields `difficult` and `attributes`, which COCO does not know, are kept where they are set."""
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


def _documents(
    tree: FileTree, files: list[str]
) -> Iterator[tuple[str, Document | LaxDocument | DatasetFormatError | OtherJsonError]]:
    """Yield every file's lists, or the reason why it is not read."""
    for name in files:
        try:
            yield name, load_document(tree, name)
        except (DatasetFormatError, OtherJsonError) as error:
            yield name, error


def _problem(error: DatasetFormatError | OtherJsonError) -> str:
    return (
        error.problem if isinstance(error, DatasetFormatError) else "it is no COCO file: it has no `images`"
    )


def _read_file(tree: FileTree, file: _File, document: Document | LaxDocument) -> None:
    _read_categories(file, document.categories)
    _read_images(file, tree, document.images)
    _read_annotations(file, document.annotations)


def _read_categories(file: _File, items: Items) -> None:
    """Name the classes; those without a name last, so that theirs is not taken from another."""
    categories = sorted(_parsed(file, items, Category, "category"), key=lambda item: id_order(item.id))
    unnamed, seen = [], set[str]()
    for category in categories:
        key, where = id_text(category.id), f"category {id_text(category.id)}"
        if key in file.classes:
            file.add(FindingCode.CLASS_DUPLICATE, "the id is used twice; the first counts", where)
            continue
        raw = category.name if isinstance(category.name, str | int | float) else ""
        name = file.class_names.take(raw, file.name, where)
        if not name:
            unnamed.append(key)
        elif name in seen:
            message = f"{name!r} is listed twice and taken as one class"
            file.add(FindingCode.CLASS_DUPLICATE, message, where)
        file.classes[key] = name
        seen.add(name)
        if isinstance(category.id, str):
            file.text_ids.add((Category, key))
    for key in unnamed:
        file.classes[key] = file.class_names.invent(f"category {key}", file.name, f"category {key}")


def _read_images(file: _File, tree: FileTree, items: Items) -> None:
    """File the pictures that exist."""
    split = split_of_stem(file.name.rsplit("/", 1)[-1]) or split_of_folders(file.name)
    for image in _parsed(file, items, Image, "image"):
        key, where = id_text(image.id), f"image {id_text(image.id)}"
        if key in file.pictures:
            file.add(FindingCode.IMAGE_REPEATED, "the id is used twice; the first counts", where)
            continue
        if isinstance(image.id, str):
            file.text_ids.add((Image, key))
        picture = file.pictures[key] = _find_picture(tree, file.name, image.file_name, split) or ""
        if not picture:
            file.add(FindingCode.IMAGE_MISSING, f"{image.file_name} is not in the archive", where)
            continue
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


def _read_annotations(file: _File, items: Items) -> None:
    seen: Counter[str] = Counter()
    for number, item in enumerate(items, start=1):
        try:
            annotation, box_is_text = parse_annotation(item)
        except ValueError as error:
            _report_unreadable(file, "annotation", number, item, str(error))
            continue
        own_id = f"number {number}" if annotation.id is None else id_text(annotation.id)
        seen[own_id] += 1
        _read_annotation(file, annotation, f"annotation {own_id}", box_is_text=box_is_text)
    for own_id, count in seen.items():
        if count > 1:
            message = f"{count} annotations share this id; all are kept"
            file.add(FindingCode.LABEL_ID_DUPLICATE, message, f"annotation {own_id}")


def _read_annotation(file: _File, annotation: Annotation, where: str, *, box_is_text: bool) -> None:
    class_name = file.classes.get(id_text(annotation.category_id))
    picture = file.pictures.get(id_text(annotation.image_id))
    if class_name is None:
        file.add(FindingCode.CLASS_UNKNOWN, f"there is no category {annotation.category_id}", where)
    elif picture is None:
        file.add(FindingCode.LABEL_INVALID, f"there is no image {annotation.image_id}", where)
    elif picture:
        file.images[picture].boxes.append(_box(file, annotation, class_name, where))
        if texts := [*_text_ids(file, annotation), *(["bbox"] if box_is_text else [])]:
            message = (
                f"{' and '.join(texts)}: text in quotes where a number belongs; it was read as the number"
            )
            file.add(FindingCode.LABEL_TEXT_NUMBER, message, where)


def _text_ids(file: _File, annotation: Annotation) -> Iterator[str]:
    """Yield the references that are text although what they refer to has a number."""
    ids: tuple[tuple[str, type[Category | Image], Id], ...] = (
        ("image_id", Image, annotation.image_id),
        ("category_id", Category, annotation.category_id),
    )
    for name, kind, value in ids:
        if isinstance(value, str) and (kind, id_text(value)) not in file.text_ids:
            yield name


def _box(file: _File, annotation: Annotation, class_name: str, where: str) -> LabelledBox:
    x, y, width, height = annotation.bbox
    return LabelledBox(
        class_name=class_name,
        x1=x,
        y1=y,
        x2=x + width,
        y2=y + height,
        crowd=is_set(annotation.iscrowd),
        difficult=is_set(annotation.difficult),
        attributes=AttributeReader(file.log).take(as_pairs(annotation.attributes), file.name, where),
        where=where,
    )


def _find_picture(tree: FileTree, label_file: str, file_name: str, split: Split | None) -> str | None:
    beside = f"{folder_of(label_file)}/{file_name}".lstrip("/")
    return beside if beside in tree else tree.find_picture(file_name, near=label_file, split=split)


def _parsed(file: _File, items: Items, kind: type[Item], word: str) -> Iterator[Item]:
    """Yield every element that can be read; the others become findings."""
    for number, item in parse_items(items, kind):
        if isinstance(item, str):
            _report_unreadable(file, word, number, items[number - 1], item)
        else:
            yield item


def _report_unreadable(file: _File, word: str, number: int, item: Any, problem: str) -> None:
    own_id = id_of(item)
    where = f"{word} number {number}" if own_id is None else f"{word} {own_id}"
    message = f"the {word} cannot be read: {problem}; {_EXPECTED[word]} is expected"
    file.add(FindingCode.LABEL_INVALID, message, where)


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
    sides = stated_side(image.width), stated_side(image.height)
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
    if box.attributes:
        annotation["attributes"] = dict(box.attributes)
    return annotation | {"difficult": 1} if box.difficult else annotation
