"""What a network is for. Plain Python."""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    DETECT = "detect"
    """Box objects and say what they are."""
    CLASSIFY = "classify"
    """Say what one object is: the second stage behind a detector."""
