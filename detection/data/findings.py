"""What was wrong in an archive, where, and what was done about it. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Action(StrEnum):
    KEPT = "kept"
    FIXED = "fixed"
    CLIPPED = "clipped"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem in one place."""

    code: str
    """Stable, snake_case, listed in docs/errors.md: `box_empty`, `image_damaged`, …"""
    severity: Severity
    action: Action
    file: str
    """Path inside the archive."""
    where: str = ""
    """`line 3`, `annotation 17`, `object 2`, or empty when it is the whole file."""
    message: str
    """What was wrong and what would be right."""
    image_id: str = ""
    """The picture concerned, when it is one."""
