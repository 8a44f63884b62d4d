"""Pascal VOC: one XML file per picture, splits as lists of names or as folders.

Coordinates are kept as the files state them, as edges in pixels: `xmax` of a box that touches the right
border is the picture's width, which is how labelling tools write and how the numbers of this project were
measured. (The original VOC counts pixels from 1; its own devkit would subtract 1.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from detection.data.attributes import AttributeReader
from detection.data.class_names import ClassNames, writable
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
from detection.data.formats.export_names import export_names
from detection.data.numbers import parse_number
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.data.splits import may_belong, split_of_folders, split_of_word
from detection.data.wording import counted
from detection.errors import DatasetFormatError

MAX_XML_BYTES = 1024**2
MAX_LIST_BYTES = 64 * 1024**2
HEAD_BYTES = 4096
POSE, NO_POSE = "pose", "Unspecified"
_ROOT = re.compile(rb"<annotation[\s/>]")
"""Not `<annotations>`, the root of CVAT's own XML."""
_PRESENCE = re.compile(r"\s+-?[01]$")
"""Lists of a single class say after each name whether it is in the picture."""


class VocFormat:
    """Reads and writes Pascal VOC."""

    name: ClassVar[str] = "voc"
    looked_for: ClassVar[str] = "XML files with the root element <annotation>"

    def detect(self, tree: FileTree) -> Evidence:
        count = len(_annotation_files(tree))
        others = len(tree.with_suffix(".xml")) - count
        seen = f"{counted(count, 'XML file')} with the root element <annotation>"
        return Evidence(count, f"{seen}, {others:,} with another" if others else seen)

    def read(self, tree: FileTree, log: FindingLog) -> LabelledDataset:
        label_files = _annotation_files(tree)
        if not label_files:
            problem = f"there are no {self.looked_for}. Seen: {tree.summary()}"
            raise DatasetFormatError("", "", problem)
        lists, class_names = _SplitLists(tree, log), ClassNames(log)
        images: dict[str, LabelledImage] = {}
        for label_file in label_files:
            image = _read_annotation(tree, label_file, lists, class_names, log)
            if image is None:
                continue
            if image.file_name in images:
                first = images[image.file_name].label_file
                log.add(
                    FindingCode.IMAGE_REPEATED, label_file, f"{first} labels the same picture; it is used"
                )
                continue
            images[image.file_name] = image
        _add_negatives(tree, images, label_files, lists, log)
        lists.report_missing(images, log)
        classes = sorted({box.class_name for image in images.values() for box in image.boxes})
        return LabelledDataset(classes, list(images.values()))

    def write(self, dataset: DatasetRecord, read_picture: ReadPicture) -> Iterator[ExportedFile]:
        """Crowd regions are left out: the format has no word for them."""
        names = export_names(dataset)
        for split in Split:
            stems = [stem_of(names[image.id]) for image in dataset.of_split(split)]
            if stems:
                content = "".join(f"{stem}\n" for stem in stems).encode()
                yield ExportedFile(f"ImageSets/Main/{split.value}.txt", content)
        for image in dataset.images:
            name = names[image.id]
            annotation = _annotation(image, name, dataset.classes).encode()
            yield ExportedFile(f"Annotations/{stem_of(name)}.xml", annotation)
            yield ExportedFile(f"JPEGImages/{name}", read_picture(image))


class _SplitLists:
    """The lists in ImageSets/Main; each belongs to the folder that holds its ImageSets."""

    def __init__(self, tree: FileTree, log: FindingLog) -> None:
        self._splits: dict[tuple[str, str], Split] = {}
        self._listed_in: dict[tuple[str, str], str] = {}
        self._stems = {stem_of(name) for name in [*tree.pictures, *tree.with_suffix(".xml")]}
        files = [name for name in tree.with_suffix(".txt") if folder_of(name).endswith("ImageSets/Main")]
        # "trainval" repeats what the others say: it counts where they say nothing
        for file in sorted(files, key=lambda name: (stem_of(name) == "trainval", name)):
            split = split_of_word(stem_of(file))
            if split is not None:
                self._read(tree, file, split, log)

    def __bool__(self) -> bool:
        return bool(self._splits)

    def split_of(self, name: str) -> Split | None:
        """Return the split of a picture or label file; None when no list names it."""
        folders, stem = folder_of(name).split("/"), stem_of(name)
        for depth in range(len(folders), -1, -1):
            key = "/".join(folders[:depth]), stem
            if key in self._splits:
                return self._splits[key]
        return None

    def report_missing(self, images: dict[str, LabelledImage], log: FindingLog) -> None:
        """Make a finding for every listed name that no picture has."""
        found = {stem_of(name) for name in images}
        for (_, stem), file in self._listed_in.items():
            if stem not in found:
                log.add(FindingCode.IMAGE_MISSING, file, f"no usable picture is named {stem}")

    def _read(self, tree: FileTree, file: str, split: Split, log: FindingLog) -> None:
        base = folder_of(file).removesuffix("ImageSets/Main").rstrip("/")
        try:
            lines = tree.read_lines(file, max_bytes=MAX_LIST_BYTES)
        except DatasetFormatError as error:
            log.add(FindingCode.LABEL_FILE_INVALID, file, error.problem)
            return
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            key = base, self._meant(line)
            earlier = self._splits.setdefault(key, split)
            self._listed_in.setdefault(key, file)
            if earlier is not split and stem_of(file) != "trainval":
                message = f"{key[1]} is listed for {earlier.value} already, where it stays"
                log.add(FindingCode.SPLIT_CONFLICT, file, message, where=f"line {number}")

    def _meant(self, line: str) -> str:
        """Return the name in a line, the one that exists if the line can be read in several ways."""
        text = line.strip()
        bare = _PRESENCE.sub("", text)
        readings = (line, text, stem_of(text), bare, stem_of(bare))
        return next((name for name in readings if name in self._stems), stem_of(bare))


def _annotation_files(tree: FileTree) -> list[str]:
    return [name for name in tree.with_suffix(".xml") if _ROOT.search(_head(tree, name))]


def _head(tree: FileTree, name: str) -> bytes:
    with tree.path(name).open("rb") as file:
        return file.read(HEAD_BYTES).replace(b"\0", b"")  # so that UTF-16 is recognised too


def _read_annotation(
    tree: FileTree, label_file: str, lists: _SplitLists, class_names: ClassNames, log: FindingLog
) -> LabelledImage | None:
    try:
        content = tree.read(label_file, max_bytes=MAX_XML_BYTES)
        root = ElementTree.fromstring(content, forbid_dtd=True)
    except DatasetFormatError as error:
        log.add(FindingCode.LABEL_FILE_INVALID, label_file, error.problem)
        return None
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        problem = "a document type is not allowed" if isinstance(error, DefusedXmlException) else str(error)
        log.add(FindingCode.LABEL_FILE_INVALID, label_file, f"it is not readable XML: {problem}")
        return None
    picture = _find_picture(tree, label_file, root, log)
    if picture is None:
        return None
    split = lists.split_of(label_file)
    if lists and split is None:
        log.add(FindingCode.IMAGE_UNLISTED, picture, "no list in ImageSets/Main names it")
        return None
    return LabelledImage(
        file_name=picture,
        split=split or split_of_folders(picture),
        boxes=list(_boxes(root, label_file, class_names, log)),
        label_file=label_file,
        stated_size_wh=_stated_size(root),
    )


def _find_picture(tree: FileTree, label_file: str, root: Element, log: FindingLog) -> str | None:
    """The picture named like the label file comes first: <filename> is often left over from a copy."""
    stated = (root.findtext("filename") or "").strip()
    picture = tree.find_picture_by_stem(stem_of(label_file), near=label_file)
    picture = picture or tree.find_picture(stated, near=label_file)
    if picture is None or not may_belong(picture, split_of_folders(label_file)):
        message = f"no picture is named {stated or stem_of(label_file)} in the archive"
        log.add(FindingCode.IMAGE_MISSING, label_file, message)
        return None
    return picture


def _stated_size(root: Element) -> tuple[int, int] | None:
    try:
        width, height = (
            int(parse_number(root.findtext(f"size/{side}") or "0")) for side in ("width", "height")
        )
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _boxes(root: Element, label_file: str, class_names: ClassNames, log: FindingLog) -> Iterator[LabelledBox]:
    for number, element in enumerate(root.findall("object"), start=1):
        where = f"object {number}"
        name = class_names.take(element.findtext("name") or "", label_file, where)
        if not name:
            message = "the object has no <name> that can be shown"
            log.add(FindingCode.LABEL_INVALID, label_file, message, where=where)
            continue
        try:
            x1, y1, x2, y2 = (_number(element, side) for side in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError as error:
            log.add(FindingCode.LABEL_INVALID, label_file, str(error), where=where)
            continue
        difficult = (element.findtext("difficult") or "").strip() == "1"
        attributes = AttributeReader(log).take(_attributes(element), label_file, where)
        yield LabelledBox(
            class_name=name,
            x1=x1,
            y1=y1,
            x2=x2,
            y2=y2,
            difficult=difficult,
            attributes=attributes,
            where=where,
        )


def _attributes(element: Element) -> Iterator[tuple[object, object]]:
    """Yield the pose, where one is stated, and what labelling tools list beside it."""
    pose = (element.findtext(POSE) or "").strip()
    if pose and pose.casefold() != NO_POSE.casefold():
        yield POSE, pose
    for listed in element.findall("attributes"):
        if text := (listed.text or "").strip():
            yield text, None
        yield from map(_attribute, listed)


def _attribute(element: Element) -> tuple[object, object]:
    """Return name and value; without a value where the element is no attribute, or has two of either."""
    if element.tag != "attribute":
        return element.tag, None
    name = (element.findtext("name") or "").strip()
    if len(element.findall("name")) > 1 or len(element.findall("value")) > 1:
        return name, None
    return name, (element.findtext("value") or "").strip()


def _number(element: Element, side: str) -> float:
    text = element.findtext(f"bndbox/{side}")
    if text is None:
        raise ValueError(f"the object has no <bndbox> with <{side}>")
    try:
        return parse_number(text)
    except ValueError as error:
        raise ValueError(f"<{side}>: {error}") from None


def _add_negatives(
    tree: FileTree,
    images: dict[str, LabelledImage],
    label_files: list[str],
    lists: _SplitLists,
    log: FindingLog,
) -> None:
    """Pictures without XML, beside such with one, hold no object; elsewhere they are masks or previews."""
    folders = {folder_of(name) for name in images}
    stems = {stem_of(name) for name in label_files}
    for name in tree.pictures:
        if folder_of(name) not in folders or stem_of(name) in stems or name in images:
            continue
        split = lists.split_of(name)
        if lists and split is None:
            log.add(FindingCode.IMAGE_UNLISTED, name, "no list in ImageSets/Main names it")
            continue
        images[name] = LabelledImage(file_name=name, split=split or split_of_folders(name), boxes=[])


def _annotation(image: ImageRecord, name: str, classes: tuple[str, ...]) -> str:
    objects = "".join(_object(box, classes) for box in image.boxes if not box.crowd)
    return (
        f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{escape(writable(name))}</filename>\n"
        f"  <size>\n    <width>{image.width}</width>\n    <height>{image.height}</height>\n"
        f"    <depth>3</depth>\n  </size>\n  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _object(box: BoxRecord, classes: tuple[str, ...]) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), (box.x1, box.y1, box.x2, box.y2), strict=True)
    edges = "".join(f"      <{side}>{value:.12g}</{side}>\n" for side, value in corners)
    return (
        f"  <object>\n    <name>{escape(classes[box.class_id])}</name>\n"
        f"    <pose>{escape(box.attribute(POSE) or NO_POSE)}</pose>\n"
        f"    <truncated>0</truncated>\n    <difficult>{int(box.difficult)}</difficult>\n"
        f"    <bndbox>\n{edges}    </bndbox>\n{_attribute_list(box)}  </object>\n"
    )


def _attribute_list(box: BoxRecord) -> str:
    listed = "".join(
        f"      <attribute>\n        <name>{escape(name)}</name>\n"
        f"        <value>{escape(value)}</value>\n      </attribute>\n"
        for name, value in box.attributes
        if name != POSE
    )
    return f"    <attributes>\n{listed}    </attributes>\n" if listed else ""
