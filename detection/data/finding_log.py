"""Collects findings while a dataset is read: every one is counted, the first of each kind are kept."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from detection.data.findings import Action, Finding, Severity
from detection.data.wording import printable

MAX_PER_CODE = 10_000
"""So many findings of one kind are kept with their places; the rest is only counted."""
MAX_MESSAGE = 1000
MAX_WHERE = 100
"""Characters: labels are quoted, and what labels say may be of any length."""


class FindingCode(StrEnum):
    """What can be wrong in a dataset."""

    IMAGE_DAMAGED = "image_damaged"
    IMAGE_UNSUPPORTED = "image_unsupported"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_MISSING = "image_missing"
    """Labels name a picture that is not in the archive."""
    IMAGE_UNLISTED = "image_unlisted"
    """The dataset lists its pictures, but not this one."""
    IMAGE_UNLABELLED = "image_unlabelled"
    IMAGE_DUPLICATE = "image_duplicate"
    """Another picture has the same bytes."""
    IMAGE_REPEATED = "image_repeated"
    """One picture is listed more than once."""
    IMAGE_SIZE_MISMATCH = "image_size_mismatch"
    BOX_EMPTY = "box_empty"
    BOX_INVERTED = "box_inverted"
    BOX_CLIPPED = "box_clipped"
    BOX_OUTSIDE = "box_outside"
    BOX_NOT_FINITE = "box_not_finite"
    LABEL_INVALID = "label_invalid"
    """One row, annotation or object cannot be read."""
    LABEL_ID_DUPLICATE = "label_id_duplicate"
    LABEL_FILE_INVALID = "label_file_invalid"
    LABEL_POLYGON = "label_polygon"
    LABEL_TEXT_NUMBER = "label_text_number"
    """A number is written as text."""
    CLASS_UNKNOWN = "class_unknown"
    CLASS_DUPLICATE = "class_duplicate"
    CLASS_SIMILAR = "class_similar"
    """Two names differ only in case or spaces."""
    CLASS_NAME_FIXED = "class_name_fixed"
    """A name is empty, too long, or holds what cannot be seen."""
    CLASS_NAMES_MISSING = "class_names_missing"
    CLASS_WITHOUT_BOXES = "class_without_boxes"
    CLASS_DROPPED = "class_dropped"
    """The request asked for it."""
    ATTRIBUTE_INVALID = "attribute_invalid"
    """What is said about a box besides its class is no short text, number or truth value."""
    SPLIT_MISSING = "split_missing"
    SPLIT_CONFLICT = "split_conflict"
    VALIDATION_CUT = "validation_cut"
    FILE_IGNORED = "file_ignored"


_OUTCOMES: dict[FindingCode, tuple[Severity, Action]] = {
    FindingCode.IMAGE_DAMAGED: (Severity.ERROR, Action.DROPPED),
    FindingCode.IMAGE_UNSUPPORTED: (Severity.ERROR, Action.DROPPED),
    FindingCode.IMAGE_TOO_LARGE: (Severity.ERROR, Action.DROPPED),
    FindingCode.IMAGE_MISSING: (Severity.ERROR, Action.DROPPED),
    FindingCode.IMAGE_UNLISTED: (Severity.WARNING, Action.DROPPED),
    FindingCode.IMAGE_UNLABELLED: (Severity.INFO, Action.KEPT),
    FindingCode.IMAGE_DUPLICATE: (Severity.WARNING, Action.KEPT),
    FindingCode.IMAGE_REPEATED: (Severity.WARNING, Action.FIXED),
    FindingCode.IMAGE_SIZE_MISMATCH: (Severity.WARNING, Action.KEPT),
    FindingCode.BOX_EMPTY: (Severity.WARNING, Action.DROPPED),
    FindingCode.BOX_INVERTED: (Severity.WARNING, Action.FIXED),
    FindingCode.BOX_CLIPPED: (Severity.WARNING, Action.CLIPPED),
    FindingCode.BOX_OUTSIDE: (Severity.WARNING, Action.DROPPED),
    FindingCode.BOX_NOT_FINITE: (Severity.ERROR, Action.DROPPED),
    FindingCode.LABEL_INVALID: (Severity.ERROR, Action.DROPPED),
    FindingCode.LABEL_ID_DUPLICATE: (Severity.INFO, Action.KEPT),
    FindingCode.LABEL_FILE_INVALID: (Severity.ERROR, Action.DROPPED),
    FindingCode.LABEL_POLYGON: (Severity.INFO, Action.FIXED),
    FindingCode.LABEL_TEXT_NUMBER: (Severity.WARNING, Action.FIXED),
    FindingCode.CLASS_UNKNOWN: (Severity.ERROR, Action.DROPPED),
    FindingCode.CLASS_DUPLICATE: (Severity.WARNING, Action.FIXED),
    FindingCode.CLASS_SIMILAR: (Severity.WARNING, Action.KEPT),
    FindingCode.CLASS_NAME_FIXED: (Severity.WARNING, Action.FIXED),
    FindingCode.CLASS_NAMES_MISSING: (Severity.WARNING, Action.FIXED),
    FindingCode.CLASS_WITHOUT_BOXES: (Severity.INFO, Action.KEPT),
    FindingCode.CLASS_DROPPED: (Severity.INFO, Action.DROPPED),
    FindingCode.ATTRIBUTE_INVALID: (Severity.WARNING, Action.DROPPED),
    FindingCode.SPLIT_MISSING: (Severity.WARNING, Action.DROPPED),
    FindingCode.SPLIT_CONFLICT: (Severity.WARNING, Action.FIXED),
    FindingCode.VALIDATION_CUT: (Severity.INFO, Action.FIXED),
    FindingCode.FILE_IGNORED: (Severity.INFO, Action.DROPPED),
}
"""How bad each is, and what is done about it."""


class FindingLog:
    """Findings in the order in which they were made."""

    def __init__(self, max_per_code: int = MAX_PER_CODE) -> None:
        self._max_per_code = max_per_code
        self.findings: list[Finding] = []
        self.counts: Counter[str] = Counter()
        """All that were made, also those beyond the limit."""

    def add(
        self,
        code: FindingCode,
        file: str,
        message: str,
        *,
        where: str = "",
        image_id: str = "",
        severity: Severity | None = None,
    ) -> None:
        """Make a finding; `severity` replaces the code's own."""
        self.counts[code.value] += 1
        if self.counts[code.value] > self._max_per_code:
            return
        usual, action = _OUTCOMES[code]
        self.findings.append(
            Finding(
                code=code.value,
                severity=severity or usual,
                action=action,
                file=file,
                where=printable(where, MAX_WHERE),
                message=printable(message, MAX_MESSAGE),
                image_id=image_id,
            )
        )
