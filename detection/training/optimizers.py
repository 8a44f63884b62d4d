"""Optimizers with three parameter groups: weights that are no normalisation always decay, the others may."""

from __future__ import annotations

from torch import nn, optim
from torch.nn.modules.batchnorm import _NormBase

from detection.training.config import OptimizerConfig, OptimizerKind

NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the parameters that learn as `norm` (their weights), `weight` (all others) and `bias` (all)."""
    groups: dict[str, list[nn.Parameter]] = {"norm": [], "weight": [], "bias": []}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if name == "bias":
                groups["bias"].append(parameter)
            elif isinstance(module, NORMALISATIONS):
                groups["norm"].append(parameter)
            else:
                groups["weight"].append(parameter)
    return groups


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> optim.Optimizer:
    """Return the optimizer of a resolved configuration; each group carries its `name`.

    Parameters without gradient (frozen parts) are left out.

    Raises:
        ValueError: the configuration is not resolved.
    """
    if config.lr is None or config.momentum is None or config.weight_decay is None:
        raise ValueError("the optimizer's configuration is not resolved: a rate, momentum or decay is null")
    decaying = {"norm": config.decay_norms, "weight": True, "bias": config.decay_biases}
    groups = [
        {"name": name, "params": parameters, "weight_decay": config.weight_decay if decaying[name] else 0.0}
        for name, parameters in parameter_groups(model).items()
    ]
    betas = (config.momentum, 0.999)
    match config.kind:
        case OptimizerKind.SGD:
            return optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
        case OptimizerKind.ADAM:
            return optim.Adam(groups, lr=config.lr, betas=betas)
        case OptimizerKind.ADAMW:
            return optim.AdamW(groups, lr=config.lr, betas=betas)


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Give every group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
