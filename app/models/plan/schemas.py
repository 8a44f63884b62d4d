"""What may be asked of a plan, and what it answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StrictBool

from app.api.shapes import EXAMPLE_ID, Shape, Wish, example
from app.models.one_device import OneDevice
from app.models.serving import ServingRead
from detection.data.records import Split
from detection.inference.plan import DEFAULT_AP_DROP

Milliseconds = Annotated[float, Field(strict=True, gt=0, le=600_000, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, gt=0, le=1_000_000, allow_inf_nan=False)]
Drop = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(strict=True, ge=0.1, le=60, allow_inf_nan=False)]


class PlanWish(Wish):
    model_config = example(p95_ms=50.0, rps=60.0, max_ap_drop=0.005)

    p95_ms: Milliseconds | None = None
    """Of 100 pictures 95 must be done within so many milliseconds, from bytes to boxes, while as many are
    under way as are computed side by side; waiting for a place is not counted."""
    rps: Rate | None = None
    """So many pictures a second must be served."""
    max_ap_drop: Drop = DEFAULT_AP_DROP
    """How much less AP than the reference backend's is allowed; a fraction."""
    dataset_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$", examples=[EXAMPLE_ID])] | None = None
    """Whose pictures to measure on; default is the dataset that the model was trained on, if it is there."""
    split: Split = Split.VAL
    """Which of its splits."""
    device: OneDevice = "auto"
    """`auto`, `cpu`, or one accelerator by number: the engine's."""
    seconds: Seconds = 2.0
    """How long each way to serve is timed."""
    pin: StrictBool = True
    """Serve the model in the best way from then on; `false` only measures."""


class PlanRowRead(ServingRead):
    """One way to serve, measured."""

    pictures_per_s: float
    """With as many pictures under way as are computed side by side."""
    p50_ms: float
    """Half of the pictures were done so soon then, from bytes to boxes."""
    p95_ms: float
    """95 of 100 were."""
    alone_p50_ms: float
    """The same of a picture that is alone, and has all cores."""
    alone_p95_ms: float
    """95 of 100 were done so soon."""
    ap: float | None
    """Null where the pictures have no boxes of the model's classes."""
    ap_drop: float | None
    """The reference's AP minus this one."""
    same_boxes: float
    """Which share of the confident boxes are those of the reference."""
    agrees: bool
    """Whether that is enough."""
    why_not: str | None = None
    """Why it was not the best, for people; null for the best, and in plans of older versions."""


class PlanWishRead(Shape):
    """What was asked for."""

    p95_ms: float | None
    """Milliseconds."""
    rps: float | None
    """Pictures a second."""
    max_ap_drop: float
    """A fraction."""


SHAPE = {"backend": "openvino", "precision": "bf16", "streams": 2, "threads": 1, "batch_size": 1}
ROW = {
    **SHAPE,
    "pictures_per_s": 115.0,
    "p50_ms": 17.2,
    "p95_ms": 18.9,
    "alone_p50_ms": 9.7,
    "alone_p95_ms": 10.4,
    "ap": 0.2921,
    "ap_drop": -0.0032,
    "same_boxes": 0.978,
    "agrees": True,
    "why_not": None,
}


class PlanRead(Shape):
    """What the last plan of a model has measured."""

    model_config = example(
        model_id=EXAMPLE_ID,
        job_id=EXAMPLE_ID,
        made_at="2026-11-20T12:00:00Z",
        device="cpu",
        processor="AMD EPYC",
        cores=2,
        dataset_id=EXAMPLE_ID,
        split="val",
        pictures=49,
        others_share=0.02,
        beside=None,
        wish={"p95_ms": 50.0, "rps": 60.0, "max_ap_drop": 0.005},
        rows=[ROW],
        winner=ROW,
        pinned=SHAPE,
        closest=None,
        unmet=[],
    )

    model_id: str
    """The model that was measured."""
    job_id: str
    """The job that measured it."""
    made_at: datetime
    """When it was done."""
    device: str
    """`cpu`, or the number of an accelerator."""
    processor: str
    """What the CPU is called: on another one the figures are others."""
    cores: int
    """That the job could use."""
    dataset_id: str | None
    """Whose pictures were used."""
    split: Split
    """Of which split."""
    pictures: int
    """How many of them told AP and agreement."""
    others_share: float | None = None
    """The share of the machine's processor time that other processes used meanwhile; null in plans of older
    versions."""
    beside: str | None = None
    """What that means for the figures, for people; null when others used less than a tenth."""
    wish: PlanWishRead
    """Which limits it had to keep."""
    rows: list[PlanRowRead]
    """Every way to serve that was measured."""
    winner: PlanRowRead | None
    """The most pictures a second, of those that agree and reach the wishes; null when none does."""
    pinned: ServingRead | None
    """What the model is served with since; null when nothing was pinned."""
    closest: PlanRowRead | None
    """What comes closest when nothing reaches the wishes."""
    unmet: list[str]
    """A sentence for each wish that nothing reaches."""
