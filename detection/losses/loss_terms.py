"""What a family's loss returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LossTerms(NamedTuple):
    """A loss by parts, and facts about the batch that came with it."""

    terms: dict[str, Tensor]
    """Weighted and normalised scalars; their sum is the loss."""
    statistics: dict[str, Tensor]
    """Scalars without gradient, on the device."""
