"""What a network consists of: a line for a log, and a table with a row for each of its parameter tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from detection.analysis.complexity import count_flops, summary_line

logger = logging.getLogger(__name__)

EXTRAPOLATION_SIDE = 64
"""The smallest picture that every family's coarsest level has a cell of; the original counts at it, too."""
COLUMNS = ("index", "name", "gradient", "count", "shape", "mean", "std")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRow:
    """One parameter tensor."""

    index: int
    name: str
    gradient: bool
    """Whether it learns."""
    count: int
    shape: tuple[int, ...]
    mean: float
    std: float | None
    """Deviation of the sample (n - 1); None for a single element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The size of a network, as one counts it at an input size."""

    layers: int
    """Modules, those that only hold others included."""
    parameters: int
    gradients: int
    """Parameters that learn."""
    gflops: float | None
    """2 x multiply-adds for one picture, in billions, counted on the full input; None when it cannot be."""
    gflops_extrapolated: float | None
    """The same from one pass over 64 x 64 pixels, times the ratio of the areas: exact only for a network
    whose maps all divide evenly."""
    tensors: tuple[TensorRow, ...]

    def summary(self) -> str:
        """Return one line for a log."""
        return summary_line(self.layers, self.parameters, self.gradients, self.gflops)

    def table(self) -> str:
        """Return the verbose table: a line per parameter tensor under one of headings."""
        rows = [COLUMNS, *(_cells(each) for each in self.tensors)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def model_info(model: nn.Module, size: int | tuple[int, int] = 640, *, verbose: bool = False) -> ModelInfo:
    """Count a network and describe its parameters; log the summary, with `verbose` also the table.

    Args:
        size: side of the square input, or (height, width), pixels.
    """
    size_hw = (size, size) if isinstance(size, int) else size
    parameters = list(model.parameters())
    info = ModelInfo(
        layers=sum(1 for _ in model.modules()),
        parameters=sum(each.numel() for each in parameters),
        gradients=sum(each.numel() for each in parameters if each.requires_grad),
        gflops=_or_none(lambda: count_flops(model, size_hw) / 1e9),
        gflops_extrapolated=_or_none(lambda: extrapolated_gflops(model, size_hw)),
        tensors=tuple(_row(index, name, each) for index, (name, each) in enumerate(model.named_parameters())),
    )
    if verbose:
        logger.info("%s", info.table())
    logger.info("%s", info.summary())
    return info


def extrapolated_gflops(
    model: nn.Module, size_hw: tuple[int, int], *, side: int = EXTRAPOLATION_SIDE
) -> float:
    """Return the GFLOPs of one pass over side x side pixels, times the ratio of the areas."""
    height, width = size_hw
    return count_flops(model, (side, side)) / 1e9 * (height * width) / side**2


def _or_none(count: Callable[[], float]) -> float | None:
    """Return a count, or None for a network that takes no pictures or has no parameters."""
    try:
        return count()
    except (RuntimeError, StopIteration):
        return None


def _row(index: int, name: str, parameter: Tensor) -> TensorRow:
    values = parameter.detach().double()
    return TensorRow(
        index=index,
        name=name,
        gradient=parameter.requires_grad,
        count=parameter.numel(),
        shape=tuple(parameter.shape),
        mean=float(values.mean()),
        std=float(values.std()) if parameter.numel() > 1 else None,
    )


def _cells(row: TensorRow) -> tuple[str, ...]:
    return (
        str(row.index),
        row.name,
        "yes" if row.gradient else "no",
        str(row.count),
        str(list(row.shape)),
        f"{row.mean:.3g}",
        "" if row.std is None else f"{row.std:.3g}",
    )
