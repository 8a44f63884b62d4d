"""One folder per class: the pictures in it show that class and nothing else; for classifiers.

Above the classes may be a folder per split, and above everything others that hold all. Folders below a class
belong to it. The label of a picture is kept as a box that is all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from detection.data.archive.names import MAX_COMPONENT_BYTES
from detection.data.class_names import ClassNames
from detection.data.file_tree import FileTree, folder_of
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
from detection.data.records import DatasetRecord, ImageRecord, Split
from detection.data.splits import split_of_word
from detection.data.wording import counted
from detection.errors import DatasetFormatError

KIND_FOLDERS = frozenset(
    {"annotations", "annotation", "images", "image", "imgs", "img", "jpegimages", "labels", "label", "masks"}
    | {"mask", "pictures", "photos", "segmentation", "segmentationclass", "segmentationobject", "depth"}
)
"""Names that say what files are, not what they show: where there is one, nothing is guessed."""
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a picture lies, the folders above everything left out."""

    split: Split | None
    folders: tuple[str, ...]
    """The class and what is below it; empty for a picture in no class."""


class FoldersFormat:
    """Reads and writes one folder per class."""

    name: ClassVar[str] = "folders"
    looked_for: ClassVar[str] = "pictures in folders, one per class"

    def detect(self, tree: FileTree) -> Evidence:
        """Count the pictures, if all of them lie in folders that can only be classes."""
        places = _places(tree)
        classes = sorted({place.folders[0] for place in places.values() if place.folders})
        named = ", ".join(classes[:MOST_NAMED]) + (", …" if len(classes) > MOST_NAMED else "")
        seen = f"pictures in {counted(len(classes), 'folder')}{f' ({named})' if named else ''}"
        is_plain = all(len(place.folders) == 1 for place in places.values())
        if len(classes) < 2 or not is_plain or KIND_FOLDERS & {name.casefold() for name in classes}:
            inside = sum(bool(place.folders) for place in places.values())
            if inside:
                seen = f"{seen}, which may be no classes; `format: folders` takes them as such"
            return Evidence(0, seen, if_asked=inside)
        return Evidence(len(places), seen)

    def read(self, tree: FileTree, log: FindingLog) -> LabelledDataset:
        class_names, images, classes = ClassNames(log), [], set[str]()
        for picture, place in _places(tree).items():
            folder = place.folders[0] if place.folders else ""
            name = class_names.take(folder, folder_of(picture)) if folder else ""
            if not name:
                log.add(FindingCode.IMAGE_UNLISTED, picture, "it lies in no folder of a class")
                continue
            classes.add(name)
            images.append(_labelled(picture, place.split, name))
        if not images:
            problem = f"there are no {self.looked_for}. Seen: {tree.summary()}"
            raise DatasetFormatError("", "", problem)
        return LabelledDataset(sorted(classes), images)

    def write(self, dataset: DatasetRecord, read_picture: ReadPicture) -> Iterator[ExportedFile]:
        """Write pictures that show one thing; `difficult` and attributes are left out.

        Raises:
            DatasetFormatError: a picture has not exactly one box that is all of it; raised at once.
        """
        for image in dataset.images:
            if not _is_whole(image):
                raise DatasetFormatError(image.file_name, "", _why_not(image))
        return _files(dataset, read_picture)


def _places(tree: FileTree) -> dict[str, _Place]:
    folders = {picture: folder_of(picture).split("/") if "/" in picture else [] for picture in tree.pictures}
    depth = _common_depth([*folders.values()])
    below = {picture: own[depth:] for picture, own in folders.items()}
    has_splits = _has_splits([own for own in below.values() if own])
    return {picture: _place(own, has_splits=has_splits) for picture, own in below.items()}


def _place(folders: list[str], *, has_splits: bool) -> _Place:
    if not has_splits:
        return _Place(None, tuple(folders))
    split = split_of_word(folders[0]) if folders else None
    return _Place(split, () if split is None else tuple(folders[1:]))


def _common_depth(folders: list[list[str]]) -> int:
    """Return how many folders hold everything without being a class or a split.

    A picture that lies beside the folders, like a preview, does not make a class of the folder around them,
    as long as most of the pictures lie in them.
    """
    depth = 0
    while True:
        here = [each for each in folders if len(each) > depth]
        deeper = sum(len(each) > depth + 1 for each in here)
        is_one = len({each[depth] for each in here}) == 1
        if not is_one or split_of_word(here[0][depth]) is not None or 2 * deeper <= len(here):
            return depth
        depth += 1


def _has_splits(folders: list[list[str]]) -> bool:
    """Tell whether the outermost folders are splits: all of them, or those with most pictures in classes.

    One folder that is called like a split among others is a class, unless it holds most pictures, in folders.
    """
    in_splits = [each for each in folders if split_of_word(each[0]) is not None]
    in_classes = sum(len(each) > 1 for each in in_splits)
    return bool(folders) and (len(in_splits) == len(folders) or 2 * in_classes > len(folders))


def _labelled(picture: str, split: Split | None, name: str) -> LabelledImage:
    whole = LabelledBox(class_name=name, x1=0.0, y1=0.0, x2=1.0, y2=1.0, where="folder")
    return LabelledImage(file_name=picture, split=split, boxes=[whole], label_file=picture, relative=True)


def _is_whole(image: ImageRecord) -> bool:
    edges = [(box.x1, box.y1, box.x2, box.y2) for box in image.boxes if not box.crowd]
    return edges == [(0, 0, image.width, image.height)] and len(image.boxes) == 1


def _why_not(image: ImageRecord) -> str:
    has = f"has {counted(len(image.boxes), 'box', 'boxes')}"
    if len(image.boxes) == 1:
        has = "has a box that is not the whole picture"
    return (
        f"a folder per class holds pictures of one thing each, but this one {has};"
        " `coco`, `yolo` and `voc` have places for boxes"
    )


def _files(dataset: DatasetRecord, read_picture: ReadPicture) -> Iterator[ExportedFile]:
    names, folders = export_names(dataset), _folder_names(dataset.classes)
    for image in dataset.images:
        folder = folders[image.boxes[0].class_id]
        yield ExportedFile(f"{image.split.value}/{folder}/{names[image.id]}", read_picture(image))


def _folder_names(classes: tuple[str, ...]) -> list[str]:
    """Return a folder for every class, as like its name as a file system allows, and no two alike."""
    taken: set[str] = set()
    folders = []
    for class_id, name in enumerate(classes):
        plain = name.replace("/", "_").replace("\\", "_").strip(" .").encode()[: MAX_COMPONENT_BYTES - 16]
        folder = plain.decode(errors="ignore").rstrip(" .") or f"class {class_id}"
        if folder.casefold() in taken:
            folder = f"{folder} {class_id}"
        taken.add(folder.casefold())
        folders.append(folder)
    return folders
