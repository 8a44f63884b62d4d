"""Find the modules of one class inside a network, by name and index."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from torch import nn

from detection.errors import UnknownNameError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundModule:
    """Where a module is."""

    index: int
    """Among all modules, in their order; the network itself is 0."""
    name: str
    """As `get_submodule` takes it; empty for the network itself."""
    module: nn.Module


def find_modules(model: nn.Module, kind: type[nn.Module] = nn.Conv2d) -> tuple[FoundModule, ...]:
    """Return the modules of a class or of its subclasses, in module order; a shared one is found once."""
    found = tuple(
        FoundModule(index, name, module)
        for index, (name, module) in enumerate(model.named_modules())
        if isinstance(module, kind)
    )
    logger.info("%d modules of class %s found", len(found), kind.__name__)
    return found


def module_class(model: nn.Module, name: str) -> type[nn.Module]:
    """Return the class of this name that modules of a network have.

    Raises:
        UnknownNameError: none has; the classes that there are are listed.
    """
    classes = {type(module).__name__: type(module) for module in model.modules()}
    if name not in classes:
        raise UnknownNameError("module class", name, sorted(classes))
    return classes[name]
