"""Begin with the weights of another model: what matches by name and shape is taken, the rest is listed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from detection.errors import WeightsError

logger = logging.getLogger(__name__)

COUNTER, STATISTICS = "num_batches_tracked", "running_mean"
"""Entries of a batch norm: how many batches it has seen, and one of what it learnt from them."""
MOST_NAMES = 200
"""Of one kind that are kept for people to read; there may be thousands."""


@dataclass(frozen=True, slots=True)
class Intersection:
    """What `intersect` found: the entries that match, and the names of those that were skipped, with why."""

    matching: dict[str, Tensor]
    excluded: tuple[str, ...]
    """Their name contains one of the excluded texts."""
    unknown: tuple[str, ...]
    """The other state has no entry of this name."""
    mismatched: tuple[str, ...]
    """The other state has an entry of this name with another shape."""

    def summary(self) -> str:
        """Return a line for the log."""
        skipped = {
            "excluded": self.excluded,
            "without a counterpart": self.unknown,
            "of another shape": self.mismatched,
        }
        why = [f"{len(names)} {reason}" for reason, names in skipped.items() if names]
        return f"{len(self.matching)} entries match" + (f", skipped: {', '.join(why)}" if why else "")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of each entry, by name."""

    taken: tuple[str, ...]
    left: tuple[str, ...]
    """In the state, but not in the model."""
    excluded: tuple[str, ...]
    """In the state, but not wanted."""
    missing: tuple[str, ...]
    """In the model, but not in the state or excluded; kept as they were."""
    mismatched: tuple[str, ...]
    """In both, with different shapes; kept as they were."""

    def as_json(self) -> dict[str, Any]:
        """Return the number of entries of each kind, and the names of the first few."""
        kinds = ("taken", "missing", "mismatched", "excluded", "left")
        named: dict[str, tuple[str, ...]] = {kind: getattr(self, kind) for kind in kinds}
        counts = {kind: len(names) for kind, names in named.items()}
        return {"counts": counts, **{kind: list(names[:MOST_NAMES]) for kind, names in named.items()}}


def intersect(
    state: Mapping[str, Tensor], other: Mapping[str, Tensor], exclude: Sequence[str] = ()
) -> Intersection:
    """Return the entries of `state` that `other` has by the same name and in the same shape.

    Args:
        exclude: entries whose name contains one of these texts are skipped.
    """
    excluded = tuple(name for name in state if any(text in name for text in exclude))
    wanted = {name: value for name, value in state.items() if name not in set(excluded)}
    unknown = tuple(name for name in wanted if name not in other)
    mismatched = tuple(
        name for name, value in wanted.items() if name in other and value.shape != other[name].shape
    )
    skipped = {*unknown, *mismatched}
    matching = {name: value for name, value in wanted.items() if name not in skipped}
    return Intersection(matching, excluded=excluded, unknown=unknown, mismatched=mismatched)


def load_matching(
    model: nn.Module, state: Mapping[str, Tensor], *, exclude: Sequence[str] = ()
) -> LoadReport:
    """Copy the entries of `state` that have the name and shape of one in `model`, in place.

    So a detector for other classes keeps everything but the class convolutions. Names that contain one of
    the texts in `exclude` are left. The counter of a batch norm goes with the norm's statistics: it has the
    same shape everywhere.

    Raises:
        WeightsError: not a single entry fits, or all are excluded.
    """
    own = model.state_dict()
    common = intersect(state, own, exclude)
    logger.info("weights: %s", common.summary())
    if len(common.excluded) == len(state):
        raise WeightsError(f"all {len(state)} weights are excluded by {', '.join(map(repr, exclude))}")
    fitting = {
        name: value for name, value in common.matching.items() if _is_founded(name, common.matching, own)
    }
    if not fitting:
        raise WeightsError(f"none of the {len(state)} weights fits the model")
    model.load_state_dict(fitting, strict=False)
    known = {*common.matching, *common.mismatched}
    return LoadReport(
        taken=tuple(fitting),
        left=common.unknown,
        excluded=common.excluded,
        missing=tuple(name for name in own if name not in known),
        mismatched=tuple(name for name in state if name in known and name not in fitting),
    )


def _is_founded(name: str, matching: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Return False for a counter whose norm's statistics were not taken."""
    norm, _, entry = name.rpartition(".")
    statistics = f"{norm}.{STATISTICS}"
    return entry != COUNTER or statistics not in own or statistics in matching
