"""What every dataset format does: recognise itself, be read, be written. Plain Python.

A reader is lenient: it lists every problem with its place and goes on with the rest. It looks at labels only;
sizes, clipping and damaged pictures are the same for all formats and handled by `importing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from detection.data.file_tree import FileTree
from detection.data.finding_log import FindingLog
from detection.data.records import DatasetRecord, ImageRecord, Split

ReadPicture = Callable[[ImageRecord], bytes]
"""Returns the bytes of a picture's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBox:
    """One object as a label file states it; nothing about its numbers is checked yet."""

    class_name: str
    x1: float
    y1: float
    x2: float
    y2: float
    crowd: bool = False
    difficult: bool = False
    attributes: tuple[tuple[str, str], ...] = ()
    """What else is said about the object; see `detection.data.attributes`."""
    where: str = ""
    """Its place in the label file: `line 3`, `annotation 17`, `object 2`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One picture with what its labels say."""

    file_name: str
    """Of the picture, as the file tree names it."""
    split: Split | None
    """None where nothing tells."""
    boxes: list[LabelledBox]
    label_file: str = ""
    """Where the labels stand; empty for a picture without any."""
    relative: bool = False
    """Coordinates are fractions of the picture's size instead of pixels."""
    stated_size_wh: tuple[int, int] | None = None
    """Width and height according to the labels."""


@dataclass(slots=True)
class LabelledDataset:
    """What a reader found."""

    classes: list[str]
    """In the order that the format gives; every box's class is among them."""
    images: list[LabelledImage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Evidence:
    """How much speaks for a format."""

    num_labels: int
    """Label files, or annotated pictures, that it recognises; 0 is no evidence."""
    seen: str
    """In words, for the user."""
    if_asked: int = 0
    """How many labels it would take where nothing tells that they are such, when it is asked for by name."""


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file of an export."""

    name: str
    content: bytes


class DatasetFormat(Protocol):
    """One layout of pictures and labels."""

    name: ClassVar[str]
    looked_for: ClassVar[str]
    """What tells this format from others, for the message that nothing was found."""

    def detect(self, tree: FileTree) -> Evidence:
        """Count the labels of this format, without reading them all."""
        ...

    def read(self, tree: FileTree, log: FindingLog) -> LabelledDataset:
        """Read what is there; problems go to the log.

        Raises:
            DatasetFormatError: there is nothing of this format.
        """
        ...

    def write(self, dataset: DatasetRecord, read_picture: ReadPicture) -> Iterator[ExportedFile]:
        """Yield the files of an export, one at a time; each picture is read when its turn comes."""
        ...
