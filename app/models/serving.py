"""How a model is served, as users see it."""

from __future__ import annotations

from app.api.shapes import Shape
from detection.inference.serving import Precision


class ServingRead(Shape):
    """One way to serve a model."""

    backend: str
    """What executes it: `onnxruntime`, `openvino`, `eager`, …"""
    precision: Precision
    """What it computes with."""
    streams: int
    """Batches side by side."""
    threads: int
    """Of each stream; a picture that is alone gets all cores."""
    batch_size: int
    """Most pictures in one batch."""
