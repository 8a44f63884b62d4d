"""Which looks at a picture test-time augmentation takes: a scale and a flip each. Plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MIN_SCALE, MAX_SCALE = 0.1, 2.0
"""Below, nothing is left to be seen; above, one look costs more than four plain ones."""
MAX_PASSES = 8
MAX_COST = 8.0
"""Of all passes, in plain looks: a pass costs the square of its scale."""


class Flip(StrEnum):
    NONE = "none"
    LEFT_RIGHT = "lr"
    UP_DOWN = "ud"


@dataclass(frozen=True, slots=True)
class TtaPass:
    """One look of the network at a picture that was fitted to its input: flipped first, then scaled."""

    scale: float = 1.0
    flip: Flip = Flip.NONE

    def __str__(self) -> str:
        return f"{self.scale:g}" if self.flip is Flip.NONE else f"{self.scale:g} {self.flip.value}"


PLAIN = TtaPass()
"""What the network sees without augmentation."""
DEFAULT_SCALES = (1.0, 0.83, 0.67)
DEFAULT_FLIPS = (Flip.NONE, Flip.LEFT_RIGHT, Flip.NONE)


def passes_of(scales: Sequence[float], flips: Sequence[str]) -> tuple[TtaPass, ...]:
    """Return the passes that two lists of the same length describe.

    Raises:
        ValueError: they are of different lengths, too many or none, or one of them is out of its range.
    """
    if len(scales) != len(flips):
        raise ValueError(
            f"there are {len(scales)} `scales` and {len(flips)} `flips`; each scale has one flip or `none`"
        )
    if not 1 <= len(scales) <= MAX_PASSES:
        raise ValueError(f"there are {len(scales)} passes; there should be 1 to {MAX_PASSES}")
    outside = [scale for scale in scales if not MIN_SCALE <= scale <= MAX_SCALE]
    if outside:
        raise ValueError(f"the scale {outside[0]:g} is not between {MIN_SCALE:g} and {MAX_SCALE:g}")
    passes = tuple(TtaPass(float(scale), Flip(flip)) for scale, flip in zip(scales, flips, strict=True))
    check_cost(scales)
    twice = next((each for each in passes if passes.count(each) > 1), None)
    if twice is not None:
        raise ValueError(f"the pass `{twice}` is there twice, which costs time and changes nothing")
    return passes


def check_cost(scales: Sequence[float]) -> None:
    """Check what passes of these scales cost together.

    Raises:
        ValueError: more than `MAX_COST`.
    """
    cost = math.fsum(scale**2 for scale in scales)
    if cost > MAX_COST:
        raise ValueError(
            f"the passes cost as much as {cost:.3g} plain ones, and may cost {MAX_COST:g}: the squares of the"
            " scales are added up"
        )


DEFAULT_PASSES = passes_of(DEFAULT_SCALES, DEFAULT_FLIPS)


def describe_passes(passes: Sequence[TtaPass]) -> str:
    """Return the line that a log has about a test-time augmentation."""
    return f"test-time augmentation: {len(passes)} passes: {', '.join(map(str, passes))}"


def passes_as_json(passes: Sequence[TtaPass]) -> list[dict[str, Any]]:
    """Return the passes as an answer shows them."""
    return [{"scale": each.scale, "flip": each.flip.value} for each in passes]
