"""Rows of YOLO label files: `class cx cy w h`, or a polygon, in fractions of the picture's size."""

from __future__ import annotations

import math

from detection.data.finding_log import FindingCode, FindingLog
from detection.data.formats.dataset_format import LabelledBox
from detection.data.formats.yolo_config import YoloConfig
from detection.data.numbers import parse_number
from detection.data.wording import counted

MOST_CLASSES_WITHOUT_NAMES = 1000
LARGEST_FRACTION = 1.5
"""Rounding and sloppy drawing lead a little outside the picture; beyond this the numbers are pixels."""


class RowReader:
    """Turns rows into boxes; collects the classes that are met when there are no names."""

    def __init__(self, config: YoloConfig, log: FindingLog) -> None:
        self._names = config.names
        self._highest = max(config.names or [MOST_CLASSES_WITHOUT_NAMES - 1])
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
                class_id, numbers = parse_row(line)
            except ValueError as error:
                self._log.add(FindingCode.LABEL_INVALID, file, str(error), where=where)
                continue
            class_name = self._class_name(class_id)
            if class_name is None:
                message = f"class {class_id} is not one of 0 to {self._highest}"
                self._log.add(FindingCode.CLASS_UNKNOWN, file, message, where=where)
                continue
            num_polygons += len(numbers) > 4
            x1, y1, x2, y2 = _edges(numbers)
            boxes.append(LabelledBox(class_name=class_name, x1=x1, y1=y1, x2=x2, y2=y2, where=where))
        if num_polygons:
            became = "the box around it" if num_polygons == 1 else "the boxes around them"
            message = f"{counted(num_polygons, 'polygon')} became {became}"
            self._log.add(FindingCode.LABEL_POLYGON, file, message)
        return boxes

    def _class_name(self, class_id: int) -> str | None:
        if self._names is not None:
            return self._names.get(class_id)
        if not 0 <= class_id < MOST_CLASSES_WITHOUT_NAMES:
            return None
        self._met.add(class_id)
        return f"class_{class_id}"


def parse_row(line: str) -> tuple[int, list[float]]:
    """Return class and coordinates of a box or a polygon; ValueError says what was expected."""
    class_text, *texts = line.split()
    if len(texts) != 4 and (len(texts) < 6 or len(texts) % 2):
        raise ValueError(f"expected `class cx cy w h`, not {counted(len(texts) + 1, 'column')}")
    try:
        class_number = parse_number(class_text)
        numbers = [parse_number(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"expected numbers, `class cx cy w h`: {error}") from None
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
