"""What `GET /serving` shows."""

from __future__ import annotations

from app.api.shapes import EXAMPLE_ID, Shape, example
from app.detect.wire import ChosenBy, EngineStatus
from app.models.serving import ServingRead


class ServedNowRead(ServingRead):
    """How one model is served at this moment."""

    model_id: str
    """The model."""
    chosen_by: ChosenBy
    """`plan`: it is pinned. `comparison`: the engine compared a faster backend with its default on the
    pictures that it was sent, and accepted it. `default`: neither."""
    reason: str | None
    """More about that, for people."""


class ServingNowRead(Shape):
    """What the engine computes on, and how each model in its memory is served."""

    model_config = example(
        device="AMD EPYC",
        backend="onnxruntime",
        models=[
            {
                "model_id": EXAMPLE_ID,
                "backend": "openvino",
                "precision": "bf16",
                "streams": 2,
                "threads": 1,
                "batch_size": 1,
                "chosen_by": "comparison",
                "reason": "openvino:bf16 was accepted: 118 of 120 boxes agree, 9.1 ms instead of 14.8 ms",
            }
        ],
    )

    device: str
    """What it computes on."""
    backend: str
    """What serves a model that nothing else was pinned to or accepted for, with its precision unless it is
    fp32: `onnxruntime`, `openvino:bf16`."""
    models: list[ServedNowRead]
    """Those in memory that somebody has asked for, and those with an alias. Another is loaded when it is
    asked for."""


def serving_now(status: EngineStatus) -> ServingNowRead:
    """Return what the engine says, as users see it."""
    models = [
        ServedNowRead(
            model_id=served.model_id,
            backend=served.shape.backend,
            precision=served.shape.precision,
            streams=served.shape.streams,
            threads=served.shape.threads,
            batch_size=served.shape.batch_size,
            chosen_by=served.chosen_by,
            reason=served.reason or None,
        )
        for served in status.served
    ]
    return ServingNowRead(device=status.device, backend=status.backend, models=models)
