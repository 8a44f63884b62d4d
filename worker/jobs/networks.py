"""The network of a published model, with its weights."""

from __future__ import annotations

from safetensors.torch import load_file

from detection.models import load_served_model
from detection.models.detector import Detector
from detection.models.network import Network
from detection.models.networks import load_served_network
from worker.stored_model import StoredModel


def load_network(model: StoredModel) -> Network:
    """Return a model's network as it is served, but not fused."""
    record = model.record
    state = load_file(model.weights)
    return load_served_network(record.architecture, num_classes=len(record.classes), state=state)


def load_detector(model: StoredModel) -> Detector:
    """Return the network of a model that detects, as `load_network`."""
    record = model.record
    state = load_file(model.weights)
    return load_served_model(record.architecture, num_classes=len(record.classes), state=state)
