"""The forms in which `/detect` answers. A new one is a file here, and a line in `ALL`."""

from __future__ import annotations

from app.detect.formats.annotated import ANNOTATED
from app.detect.formats.answer_format import Answer, AnswerFormat
from app.detect.formats.coco import COCO
from app.detect.formats.label_studio import LABEL_STUDIO
from app.detect.formats.native import NATIVE
from app.detect.formats.yolo import YOLO, YOLO_ZIP

ALL = (NATIVE, COCO, LABEL_STUDIO, YOLO, YOLO_ZIP, ANNOTATED)
"""Of two that a client wants equally, the first."""
FORMATS: dict[str, AnswerFormat] = {name: each for each in ALL for name in (each.media_type, *each.also)}
"""By each name that asks for one."""

__all__ = ["ALL", "FORMATS", "NATIVE", "Answer", "AnswerFormat"]
