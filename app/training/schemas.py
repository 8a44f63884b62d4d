"""The body of `POST /train`, and what an architecture looks like from outside."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, TypeAdapter, WithJsonSchema

from app.api.links import Links
from app.api.shapes import EXAMPLE_ID, Name, Shape, example, example_of
from detection.architectures import ARCHITECTURES
from detection.training.config import STRICT, TrainingConfig

DEVICE = r"^(auto|cpu|[0-9]{1,3}(,[0-9]{1,3}){0,15})$"


def _known_device(text: str) -> str:
    if re.fullmatch(DEVICE, text) is None:
        raise ValueError(
            "should be `auto`, `cpu`, or accelerators by number, separated by commas: `0`, `0,1`"
        )
    return text


Device = Annotated[
    str, AfterValidator(_known_device), WithJsonSchema({"type": "string", "maxLength": 64, "pattern": DEVICE})
]

TRAIN_EXAMPLES = [
    {"dataset_id": EXAMPLE_ID, "epochs": 10},
    {
        "dataset_id": EXAMPLE_ID,
        "name": "fine-tuned",
        "architecture": "yolox-nano",
        "init": "pretrained",
        "epochs": 30,
        "input_size": 416,
        "optimizer": {"lr_per_image": 0.000625},
        "augmentation": {"mosaic": 0.5, "flip": 0.5},
    },
]


@lru_cache(maxsize=1)
def config_schema() -> dict[str, Any]:
    """Return the JSON schema of a training's configuration."""
    schema = TypeAdapter(TrainingConfig).json_schema()
    schema["properties"]["architecture"]["enum"] = list(ARCHITECTURES.names())
    return schema


def _complete(schema: dict[str, Any]) -> None:
    """Add the examples, and the descriptions of inherited fields, which pydantic does not look for."""
    schema["examples"] = TRAIN_EXAMPLES
    for name, inherited in config_schema()["properties"].items():
        for key in inherited.keys() & {"description", "enum"}:
            schema["properties"][name][key] = inherited[key]


@dataclass(frozen=True, kw_only=True)
class TrainRequest(TrainingConfig):
    """What to train on what. Every field that is left out, or null, takes the architecture's recipe."""

    __pydantic_config__: ClassVar = {**STRICT, "json_schema_extra": _complete}

    dataset_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    """The dataset to train on; it must be `ready`."""
    device: Device = "auto"
    name: Name | None = None
    """Shown in lists, and the model's name in the end; default is made of architecture and dataset."""

    def config(self) -> TrainingConfig:
        """Return what decides the computation, without what it is called and what it runs on."""
        return TrainingConfig(**{field.name: getattr(self, field.name) for field in fields(TrainingConfig)})


class PublishedRead(Shape):
    """Figures of the original project on COCO."""

    input_size: int
    """Side of the square network input, pixels."""
    ap_val: float
    """AP on COCO val2017, a fraction."""
    parameters: int
    """With 80 classes."""
    gflops: float
    """2 × multiply-adds at the input size."""


class ArchitectureRead(Shape):
    """A network that can be trained."""

    model_config = example(
        name="yolox-nano",
        family="yolox",
        input_size=416,
        input_multiple=32,
        parameters=912159,
        gflops=1.11,
        published={"input_size": 416, "ap_val": 0.258, "parameters": 912159, "gflops": 1.11},
        published_elsewhere=[],
        weights_licence="Apache-2.0",
        links={"self": "/architectures/yolox-nano"},
    )

    name: str
    """As `POST /train` takes it."""
    family: str
    """Networks of a family share recipe, losses and input convention."""
    input_size: int
    """Side of the square network input, pixels."""
    input_multiple: int
    """`input_size` must be a multiple of this."""
    parameters: int
    """With 80 classes."""
    gflops: float
    """2 × multiply-adds at `input_size`, in billions."""
    published: PublishedRead
    """What the original project measured."""
    published_elsewhere: list[PublishedRead]
    """The same at other input sizes."""
    weights_licence: str
    """Of the original project's weights."""
    links: Links
    """Where to go on."""


class ArchitectureDetail(ArchitectureRead):
    """A network with everything that can be chosen about its training."""

    model_config = example(
        **example_of(ArchitectureRead),
        default_config={"architecture": "yolox-nano", "epochs": 300, "optimizer": {"lr": None}},
        recipe={"architecture": "yolox-nano", "epochs": 300, "optimizer": {"lr": 0.005}},
        config_schema={"type": "object", "properties": {"epochs": {"type": "integer", "minimum": 1}}},
    )

    default_config: dict[str, Any]
    """What `POST /train` takes when nothing is chosen; null is filled in from the recipe."""
    recipe: dict[str, Any]
    """The same, filled in for the published number of epochs on 1000 pictures."""
    config_schema: dict[str, Any]
    """JSON schema of the configuration, with bounds and descriptions."""
