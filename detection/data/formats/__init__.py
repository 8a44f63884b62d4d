"""Dataset formats by name. A new one is one module here and one line below. Plain Python."""

from detection.data.formats.coco import CocoFormat
from detection.data.formats.dataset_format import DatasetFormat
from detection.data.formats.folders import FoldersFormat
from detection.data.formats.voc import VocFormat
from detection.data.formats.yolo import YoloFormat
from detection.registry import Registry

FORMATS: Registry[DatasetFormat] = Registry("dataset format")
for _format in (CocoFormat(), YoloFormat(), VocFormat(), FoldersFormat()):
    FORMATS.add(_format.name, _format)

LAST_RESORT = FoldersFormat.name
"""Taken for `auto` only where nothing speaks for any other: it has no labels of its own."""

__all__ = ["FORMATS", "LAST_RESORT", "DatasetFormat"]
