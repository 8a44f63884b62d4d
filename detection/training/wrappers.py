"""Look through what is put around a model to train it, and carry its plain attributes over to another."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

COMPILED = "_orig_mod"
"""Where `torch.compile` keeps the model that it was given."""
PARALLEL = "module"
"""Where data-parallel wrappers do."""


def is_parallel(model: nn.Module) -> bool:
    """Return whether a model, perhaps inside a compiled wrapper, is spread over devices or processes."""
    return isinstance(_uncompiled(model), DataParallel | DistributedDataParallel)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside data-parallel and compiled wrappers, in whatever order they were put around it.

    Weights are averaged, saved and counted without wrappers, so that no name carries their prefix.
    """
    while is_parallel(model):
        model = _uncompiled(model).get_submodule(PARALLEL)
    return _uncompiled(model)


def copy_attributes(
    target: object, source: object, *, include: Collection[str] = (), exclude: Collection[str] = ()
) -> tuple[str, ...]:
    """Give `target` the instance attributes of `source`; they are shared, not copied deeply.

    Names that begin with an underscore are left out, so modules, parameters and buffers stay as they are.

    Args:
        include: only these names; empty is all.
        exclude: never these names.

    Returns:
        The names that were set, in the order of `source`.
    """
    chosen: dict[str, Any] = {
        name: value
        for name, value in vars(source).items()
        if not name.startswith("_") and name not in exclude and (not include or name in include)
    }
    for name, value in chosen.items():
        setattr(target, name, value)
    return tuple(chosen)


def _uncompiled(model: nn.Module) -> nn.Module:
    while isinstance(inner := getattr(model, COMPILED, None), nn.Module):
        model = inner
    return model
