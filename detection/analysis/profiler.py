"""Time what a network does, forward and backward, one part at a time, on the device that it is on.

Shape suffixes: B = images, H W = input pixels.
"""

from __future__ import annotations

import copy
import logging
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detection.clock import synchronised_time
from detection.models.network import Network

logger = logging.getLogger(__name__)

Maps: TypeAlias = Tensor | Sequence[Tensor]
"""What goes into an op or comes out of it: a tensor, or one per level."""
Op = Callable[[Maps], Maps]
"""A module, or anything else that turns maps into maps."""
Shapes = tuple[tuple[int, ...], ...]
Now = Callable[[torch.device], float]
"""Seconds from an arbitrary point, read when the device has done all that was asked of it."""

WHOLE = "whole"
WARM_UP_RUNS = 3
"""What is loaded, chosen and allocated at first is no part of the figures."""
COLUMNS = ("part", "parameters", "GFLOPs", "forward ms", "backward ms", "input", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRow:
    """What one op costs."""

    name: str
    parameters: int
    gflops: float
    """2 x multiply-adds of convolutions and matrix products for the input as it is, in billions."""
    forward_ms: float
    forward_ms_std: float
    """Deviation of the runs; NaN for a single one."""
    backward_ms: float
    """Of the sum of all outputs; NaN for an op that nothing can be learnt through."""
    backward_ms_std: float
    input_shapes: Shapes
    """One per tensor."""
    output_shapes: Shapes


def profile(
    x: Maps,
    ops: Op | Sequence[Op],
    runs: int = 100,
    *,
    names: Sequence[str] = (),
    now: Now = synchronised_time,
    ran: Callable[[], None] = lambda: None,
) -> tuple[OpRow, ...]:
    """Return a row for each op: size, operations, mean times of `runs` runs after a few to warm up.

    Modules are copied to the device of `x`, and made half where `x` is; they stay in their mode.

    Args:
        x: the input of every op; it gets a gradient, too.
        names: of the ops; those left out are called by their class.
        now: the clock.
        ran: called after every run.

    Raises:
        ValueError: there is no run to be timed.
    """
    if runs < 1:
        raise ValueError(f"{runs} runs have no mean; at least 1 is needed")
    chosen = list(ops) if isinstance(ops, Sequence) else [ops]
    named = [*names, *(type(op).__name__ for op in chosen[len(names) :])]
    rows = tuple(_profile(x, op, name, runs, now, ran) for op, name in zip(chosen, named, strict=True))
    for line in table_lines(rows):
        logger.info("%s", line)
    return rows


def profile_parts(
    network: Network,
    images_BCHW: Tensor,
    runs: int = 100,
    *,
    now: Now = synchronised_time,
    ran: Callable[[], None] = lambda: None,
) -> tuple[OpRow, ...]:
    """Return a row for each part of a network, as backbone, neck and head, and one for the whole of it.

    Each part is fed with what the one before it makes of the images.
    """
    features: Maps = images_BCHW
    rows = list[OpRow]()
    for name, part in network.parts().items():
        rows.extend(profile(features, part, runs, names=[name], now=now, ran=ran))
        with torch.no_grad():
            features = _placed(part, features)(features)
    rows.extend(profile(images_BCHW, network, runs, names=[WHOLE], now=now, ran=ran))
    return tuple(rows)


def table_lines(rows: Sequence[OpRow]) -> list[str]:
    """Return the rows as lines of text under a line of headings."""
    table = [COLUMNS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _profile(x: Maps, op: Op, name: str, runs: int, now: Now, ran: Callable[[], None]) -> OpRow:
    op, device = _placed(op, x), _each(x)[0].device
    for _ in range(WARM_UP_RUNS):
        _run(x, op, partial(now, device))
        ran()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outputs = op(x)
    times = []
    for _ in range(runs):
        times.append(_run(x, op, partial(now, device)))
        ran()
    forward, backward = ([1000 * each for each in column] for column in zip(*times, strict=True))
    parameters = op.parameters() if isinstance(op, nn.Module) else ()
    return OpRow(
        name=name,
        parameters=sum(each.numel() for each in parameters),
        gflops=counter.get_total_flops() / 1e9,
        forward_ms=statistics.fmean(forward),
        forward_ms_std=_deviation(forward),
        backward_ms=statistics.fmean(backward),
        backward_ms_std=_deviation(backward),
        input_shapes=_shapes(x),
        output_shapes=_shapes(outputs),
    )


def _deviation(times: Sequence[float]) -> float:
    """Return how far the runs are from their mean; NaN for one run, which says nothing of it."""
    return math.nan if len(times) == 1 or math.isnan(times[0]) else statistics.pstdev(times)


def _placed(op: Op, x: Maps) -> Op:
    """Return a copy of a module on the device of `x`, half where `x` is; anything else as it is."""
    if not isinstance(op, nn.Module):
        return op
    first = _each(x)[0]
    placed: Op = copy.deepcopy(op).to(first.device)
    return placed.half() if isinstance(placed, nn.Module) and first.dtype is torch.float16 else placed


def _run(x: Maps, op: Op, now: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds that one run took, forward and backward."""
    given = [each.detach().requires_grad_(each.is_floating_point()) for each in _each(x)]
    if isinstance(op, nn.Module):
        op.zero_grad(set_to_none=True)
    began = now()
    outputs = op(given[0] if isinstance(x, Tensor) else given)
    there = now()
    total = sum((each.sum() for each in _each(outputs)), start=torch.zeros((), device=given[0].device))
    if not total.requires_grad:
        return there - began, math.nan
    total.backward()
    return there - began, now() - there


def _each(maps: Maps) -> Sequence[Tensor]:
    return (maps,) if isinstance(maps, Tensor) else maps


def _shapes(maps: Maps) -> Shapes:
    return tuple(tuple(each.shape) for each in _each(maps))


def _cells(row: OpRow) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.parameters:,}",
        f"{row.gflops:.3f}",
        _time(row.forward_ms, row.forward_ms_std),
        _time(row.backward_ms, row.backward_ms_std),
        " ".join("x".join(map(str, shape)) for shape in row.input_shapes),
        " ".join("x".join(map(str, shape)) for shape in row.output_shapes),
    )


def _time(mean: float, deviation: float) -> str:
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"
