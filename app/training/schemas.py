"""The body of `POST /train`, and what an architecture looks like from outside."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Union

from pydantic import AfterValidator, Discriminator, Field, Tag, TypeAdapter, WithJsonSchema

from app.api.links import Links
from app.api.shapes import EXAMPLE_ID, Name, Shape, Wish, example, example_of
from detection.families import DEFAULT_FAMILY, DEFAULT_OF_TASK, FAMILIES, Family, architectures_of
from detection.families.reading import chosen_by, family_named
from detection.tasks import Task
from detection.training.config import STRICT, TrainingConfig
from detection.training.descriptions import describe_inherited

DEVICE = r"^(auto|cpu|[0-9]{1,3}(,[0-9]{1,3}){0,15})$"


def _known_device(text: str) -> str:
    if re.fullmatch(DEVICE, text) is None:
        raise ValueError(
            "should be `auto`, `cpu`, or accelerators by number, separated by commas: `0`, `0,1`"
        )
    numbers = [int(number) for number in text.split(",") if number.isdigit()]
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"names an accelerator twice: `{text}`")
    return text


Device = Annotated[
    str,
    AfterValidator(_known_device),
    WithJsonSchema({"type": "string", "maxLength": 64, "pattern": DEVICE, "examples": ["auto"]}),
]


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train on what; each family's request adds the options of its configuration.

    Every field that is left out, or null, takes the architecture's recipe.
    """

    __pydantic_config__: ClassVar = STRICT
    family: ClassVar[Family[Any]]

    dataset_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$", examples=[EXAMPLE_ID])]
    """The dataset to train on; it must be `ready`."""
    device: Device = "auto"
    name: Name | None = None
    """Shown in lists, and the model's name in the end; default is made of architecture and dataset."""

    def config(self) -> TrainingConfig:
        """Return what decides the computation, without what it is called and what it runs on."""
        config: type[TrainingConfig] = self.family.config
        return config(**{field.name: getattr(self, field.name) for field in fields(config)})


def _request_of(family: Family[Any]) -> type[TrainRequest]:
    """Return the body of `POST /train` for a family."""
    body = {
        "__module__": __name__,
        "__doc__": f"{TrainRequest.__doc__}",
        "__pydantic_config__": {**STRICT, "json_schema_extra": _finished(family)},
        "family": family,
    }
    name = f"{family.config.__name__.removesuffix('Config')}{TrainRequest.__name__}"
    return dataclass(frozen=True, kw_only=True)(type(name, (TrainRequest, family.config), body))


def _finished(family: Family[Any]) -> Callable[[dict[str, Any], type], None]:
    """Return what completes the JSON schema of a family's request."""

    def finish(schema: dict[str, Any], request: type) -> None:
        describe_inherited(schema, request)
        schema["properties"] |= chosen_by(family, schema["properties"])
        if family is DEFAULT_OF_TASK[Task.CLASSIFY]:  # else a body that says neither would fit two families
            schema["anyOf"] = [{"required": ["architecture"]}, {"required": ["task"]}]
        schema["examples"] = _examples(family)

    return finish


def _examples(family: Family[Any]) -> list[dict[str, Any]]:
    chosen = {"architecture": architectures_of(family)[0]}
    if family is DEFAULT_OF_TASK[Task.CLASSIFY]:
        chosen = {"task": "classify", **chosen}
    tuned = {"name": "fine-tuned", **chosen, "init": "pretrained", "epochs": 30, "input_size": 416}
    return [
        {"dataset_id": EXAMPLE_ID, **({} if family is DEFAULT_FAMILY else chosen), "epochs": 10},
        {"dataset_id": EXAMPLE_ID, **tuned, "augmentation": {"flip": 0.25}},
    ]


TRAIN_REQUESTS = {
    family.name: _request_of(family)
    for family in sorted(map(FAMILIES.__getitem__, FAMILIES), key=lambda each: each is not DEFAULT_FAMILY)
}
"""The body of `POST /train` for each family, by its name; that of the default family comes first."""
READERS: Mapping[str, TypeAdapter[TrainRequest]] = {
    name: TypeAdapter(request) for name, request in TRAIN_REQUESTS.items()
}
ONE_OF_THEM: Any = Annotated[
    Union[tuple(Annotated[request, Tag(name)] for name, request in TRAIN_REQUESTS.items())],  # noqa: UP007
    Discriminator(lambda body: family_named(body).name),
]
"""What the API's description says of them: exactly one fits."""
TRAIN_EXAMPLES = [body for request in TRAIN_REQUESTS.values() for body in _examples(request.family)]


class ReproduceWish(Wish):
    """What may be another way than in the first training: where it runs."""

    model_config = example(device="auto")

    device: Device | None = None
    """Default is that of the first training. Numbers that come out on another device may be others."""


class PublishedRead(Shape):
    """Figures of the original project: a detector's on COCO, a classifier's on ImageNet."""

    input_size: int
    """Side of the square network input, pixels."""
    ap_val: float | None
    """Of a detector: AP on COCO val2017, a fraction."""
    accuracy: float | None
    """Of a classifier: how often its first answer is right on ImageNet's validation pictures, a fraction."""
    parameters: int
    """With 80 classes, of a classifier with 1000."""
    gflops: float
    """2 × multiply-adds at the input size."""


class ArchitectureRead(Shape):
    """A network that can be trained."""

    model_config = example(
        name="yolox-nano",
        task="detect",
        family="yolox",
        input_size=416,
        input_multiple=32,
        parameters=912159,
        gflops=1.11,
        published={
            "input_size": 416,
            "ap_val": 0.258,
            "accuracy": None,
            "parameters": 912159,
            "gflops": 1.11,
        },
        published_elsewhere=[],
        weights_licence="Apache-2.0",
        links={"self": "/architectures/yolox-nano"},
    )

    name: str
    """As `POST /train` takes it."""
    task: Task
    """`detect`: box objects; `classify`: say what one object is."""
    family: str
    """Networks of a family share recipe, losses and input convention."""
    input_size: int
    """Side of the square network input, pixels."""
    input_multiple: int
    """`input_size` must be a multiple of this."""
    parameters: int
    """With 80 classes, of a classifier with 1000."""
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
