"""Dataset formats by name. A new one is one module here and one line below. Plain Python."""

from detection.data.formats.coco import CocoFormat
from detection.data.formats.dataset_format import DatasetFormat
from detection.data.formats.voc import VocFormat
from detection.data.formats.yolo import YoloFormat
from detection.registry import Registry

FORMATS: Registry[DatasetFormat] = Registry("dataset format")
for _format in (CocoFormat(), YoloFormat(), VocFormat()):
    FORMATS.add(_format.name, _format)

__all__ = ["FORMATS", "DatasetFormat"]
