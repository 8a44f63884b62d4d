"""Compare the weights of two models of one architecture: to the bit, and by how far they are apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightComparison:
    """How two states differ."""

    tensors: int
    """Names that both have, with the same shape and type."""
    differing: int
    """Of them, those that are not the same to the bit."""
    unmatched: tuple[str, ...]
    """Names that only one has, or both with another shape or type."""
    max_abs_difference: float
    max_relative_difference: float
    """Of a tensor: its largest difference over its largest magnitude in either state."""
    worst_tensor: str | None
    """The one with the largest relative difference; None when there is no difference."""

    @property
    def identical(self) -> bool:
        """True when every tensor of one state is the same in the other, to the bit."""
        return not self.differing and not self.unmatched

    def is_within(self, tolerance: float) -> bool:
        """Return whether no tensor is further off than by this relative difference, and none is missing."""
        return not self.unmatched and self.max_relative_difference <= tolerance


def compare_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> WeightComparison:
    """Compare two states, on the CPU. Neither is the reference: exchanged, the answer is the same.

    A number that is not finite in one of them is infinitely far from any other.
    """
    common = sorted(name for name in first.keys() & second.keys() if _alike(first[name], second[name]))
    differing = [name for name in common if _bytes(first[name]) != _bytes(second[name])]
    apart = {name: _distance(first[name], second[name]) for name in differing}
    worst = max(differing, key=lambda name: apart[name][1], default=None)
    return WeightComparison(
        tensors=len(common),
        differing=len(differing),
        unmatched=tuple(sorted((first.keys() | second.keys()) - set(common))),
        max_abs_difference=max((each[0] for each in apart.values()), default=0.0),
        max_relative_difference=max((each[1] for each in apart.values()), default=0.0),
        worst_tensor=worst,
    )


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, types, shapes and bits of a state, by name.

    Two files with the same tensors have the same one, whatever else is written in them.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _alike(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _distance(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Return the largest difference, and the same over the largest magnitude."""
    one, other = first.detach().cpu().double(), second.detach().cpu().double()
    difference = (one - other).abs().max()
    if not difference.isfinite():
        return torch.inf, torch.inf
    scale = torch.maximum(one.abs().max(), other.abs().max())
    return float(difference), float(difference / scale) if scale else 0.0
