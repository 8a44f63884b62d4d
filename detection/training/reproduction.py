"""What a reproduction says in the end: are these the original's weights, and what was not as it was then."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from detection.models.comparison import WeightComparison, compare_weights, tensors_sha256

TOLERANCE = 1e-3
"""Of a tensor's largest magnitude. Weights further apart than this have learnt something else."""
MOST_NAMES = 100

COMPARED = {
    "source": "source",
    "processor": "processor",
    "instructions": "instructions of the processor",
    "devices": "devices",
    "platform": "platform",
    "threads": "threads",
    "precision": "precision",
    "deterministic": "deterministic kernels",
    "micro_batches": "parts that a batch is computed in",
    "recoveries": "times that the loss was not finite",
    "step": "step of the weights",
}
"""Entries of a provenance that may change the numbers, and what they are called."""


def report_reproduction(
    original: Mapping[str, Any],
    reproduced: Mapping[str, Any],
    original_state: Mapping[str, Tensor],
    reproduced_state: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Return what is known of a reproduction, as the job's result and the model's provenance hold it.

    Args:
        original, reproduced: the provenance of both models.
        original_state, reproduced_state: their published weights, on the CPU.
    """
    compared = compare_weights(original_state, reproduced_state)
    return {
        "identical": compared.identical,
        "within_tolerance": compared.is_within(TOLERANCE),
        "tolerance": TOLERANCE,
        "tensors": compared.tensors,
        "differing_tensors": compared.differing,
        "unmatched_tensors": list(compared.unmatched[:MOST_NAMES]),
        "max_abs_difference": _finite(compared.max_abs_difference),
        "max_relative_difference": _finite(compared.max_relative_difference),
        "worst_tensor": compared.worst_tensor,
        "tensors_sha256": tensors_sha256(reproduced_state),
        "original_tensors_sha256": tensors_sha256(original_state),
        "differences": list(differences(original, reproduced)),
        "summary": _summary(compared),
    }


def differences(original: Mapping[str, Any], reproduced: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what was not the same when two models were trained, as their provenances have it."""
    then, now = original.get("versions", {}), reproduced.get("versions", {})
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield f"{name}: {_said(then.get(name))} then, {_said(now.get(name))} now"
    for entry, called in COMPARED.items():
        if original.get(entry) != reproduced.get(entry):
            yield f"{called}: {_said(original.get(entry))} then, {_said(reproduced.get(entry))} now"


def _said(value: object) -> str:
    if value is None:
        return "not recorded"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _finite(value: float) -> float | None:
    """Return a number that JSON can hold; None is infinitely far."""
    return value if math.isfinite(value) else None


def _summary(compared: WeightComparison) -> str:
    if compared.identical:
        return f"all {compared.tensors} tensors are the same to the bit"
    if compared.unmatched:
        return f"{len(compared.unmatched)} tensors have no counterpart, one is {compared.unmatched[0]!r}"
    relation = "within" if compared.is_within(TOLERANCE) else "beyond"
    return (
        f"{compared.differing} of {compared.tensors} tensors differ, {relation} the tolerance of "
        f"{TOLERANCE:g}: by {compared.max_abs_difference:.3g} at most, and by "
        f"{compared.max_relative_difference:.3g} of the largest magnitude in {compared.worst_tensor!r}"
    )
