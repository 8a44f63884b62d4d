"""Count what a network costs: parameters, and floating-point operations at an input size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Complexity:
    """The size of a network."""

    layers: int
    """Modules, those that only hold others included."""
    parameters: int
    gradients: int
    """Parameters that learn."""
    gflops: float
    """2 x multiply-adds of the convolutions and matrix products, in billions, for one picture."""

    def summary(self) -> str:
        """Return one line for a log."""
        return summary_line(self.layers, self.parameters, self.gradients, self.gflops)


def summary_line(layers: int, parameters: int, gradients: int, gflops: float | None) -> str:
    """Return the size of a network in one line; without the operations when they could not be counted."""
    counted = f"{layers} layers, {parameters:,} parameters, {gradients:,} gradients"
    return f"Model Summary: {counted}" + ("" if gflops is None else f", {gflops:.2f} GFLOPs")


def count_complexity(model: nn.Module, input_size_hw: tuple[int, int]) -> Complexity:
    """Count a network by one pass over the full input, in evaluation mode and without a gradient."""
    parameters = list(model.parameters())
    return Complexity(
        layers=sum(1 for _ in model.modules()),
        parameters=sum(each.numel() for each in parameters),
        gradients=sum(each.numel() for each in parameters if each.requires_grad),
        gflops=count_flops(model, input_size_hw) / 1e9,
    )


def count_flops(model: nn.Module, input_size_hw: tuple[int, int]) -> int:
    """Return 2 x the multiply-adds of the network's convolutions and matrix products for one picture."""
    example: Tensor = next(model.parameters())
    image_BCHW = example.new_zeros(1, 3, *input_size_hw)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(image_BCHW)
    finally:
        model.train(was_training)
    return counter.get_total_flops()
