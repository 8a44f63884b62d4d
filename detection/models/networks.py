"""Networks by name, whatever their task: for what does not care which it is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from detection.architectures import ARCHITECTURES
from detection.models import create_served_model, load_served_model
from detection.models.classifier import CLASSIFIERS
from detection.models.network import Network
from detection.tasks import Task


def create_served_network(architecture: str, *, num_classes: int) -> Network:
    """Return the network that published weights belong to: without what training alone needs, in eval mode.

    Raises:
        UnknownNameError: there is no such architecture.
        ValueError: there is no class to tell.
    """
    if ARCHITECTURES[architecture].task is Task.DETECT:
        return create_served_model(architecture, num_classes=num_classes)
    if num_classes < 1:
        raise ValueError(f"a classifier needs at least one class, not {num_classes}")
    return CLASSIFIERS[architecture](num_classes=num_classes, loss=None).eval()


def load_served_network(architecture: str, *, num_classes: int, state: Mapping[str, Tensor]) -> Network:
    """Return the network of published weights with these weights, as wide as they are, in eval mode.

    Raises:
        UnknownNameError: there is no such architecture.
        ValueError: there is no class to tell.
        WeightsError: the weights are not those of a detector of this architecture, or of a narrower one.
    """
    if ARCHITECTURES[architecture].task is Task.DETECT:
        return load_served_model(architecture, num_classes=num_classes, state=state)
    network = create_served_network(architecture, num_classes=num_classes)
    network.load_state_dict(state)
    return network
