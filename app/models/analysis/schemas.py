"""What may be asked of a profile and of pruning."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictBool

from app.api.shapes import EXAMPLE_ID, Name, Wish, example
from app.models.one_device import OneDevice
from detection.data.records import Split
from detection.training.checks import LARGEST_SIDE, SMALLEST_SIDE

Side = Annotated[int, Field(strict=True, ge=SMALLEST_SIDE, le=LARGEST_SIDE)]
ClassOfModules = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", examples=["Conv2d"])
]


def _one_or_two(value: Any) -> Any:
    if isinstance(value, list) and len(value) != 2:
        raise ValueError(f"should be one number, or two: [height, width]; there are {len(value)}")
    return value


class ProfileWish(Wish):
    model_config = example(input_size=[416, 416], runs=20, verbose=True)

    device: OneDevice = "auto"
    """`auto`, `cpu`, or one accelerator by number."""
    input_size: Annotated[
        Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None, BeforeValidator(_one_or_two)
    ] = None
    """Side of a square input, or [height, width], pixels; default is the model's own."""
    batch_size: Annotated[int, Field(strict=True, ge=1, le=256)] = 1
    """Pictures in each run."""
    runs: Annotated[int, Field(strict=True, ge=1, le=1000)] = 20
    """Timed runs of each part, after a few to warm up."""
    half: StrictBool = False
    """Compute in half precision."""
    type: ClassOfModules | None = None
    """List the modules of this class as well, for example `Conv2d`."""
    verbose: StrictBool = False
    """A row for every parameter tensor as well."""


class PruneScope(StrEnum):
    LAYER = "layer"
    GLOBAL = "global"
    CHANNELS = "channels"


class PruneWish(Wish):
    model_config = example(amount=0.3, scope="channels", finetune_epochs=10)

    amount: Annotated[float, Field(strict=True, ge=0.01, le=0.99)] = 0.3
    """The fraction to remove: of the weights of each convolution (`layer`), of those of all convolutions
    together (`global`), or of the channels of each layer (`channels`)."""
    scope: PruneScope = PruneScope.LAYER
    """`layer` and `global` set the smallest weights to zero: the network has the same size and speed.
    `channels` removes whole channels: it becomes smaller and faster, and loses more."""
    finetune_epochs: Annotated[int, Field(strict=True, ge=0, le=1000)] = 0
    """Epochs of training after pruning, by the recipe of a short run; zeros stay zeros. The dataset must have
    the model's classes and pictures to train on."""
    dataset_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$", examples=[EXAMPLE_ID])] | None = None
    """To measure on, and to fine-tune with; default is the dataset that the model was trained on, if it is
    still there. Without any, nothing is measured."""
    split: Split = Split.VAL
    """Which of its splits measures."""
    device: OneDevice = "auto"
    """`auto`, `cpu`, or one accelerator by number."""
    name: Name | None = None
    """The new model's; default is made of the old one's."""
