"""What the protocol's calls take and answer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, model_validator

from app.api.shapes import EXAMPLE_ID, ClassName, Shape, Wish, example
from app.detect.schemas import LookParameters
from app.v2.tensors import Datatype

Axis = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
MOST_AXES = 8
"""More than `image` has, so that a tensor of pixels is told what is wanted instead."""
EXAMPLE_TENSOR = {"name": "num_detections", "datatype": "INT32", "shape": [1], "data": [2]}
SERVER_SIDE = ("shared_memory", "classification")
"""Beginnings of parameters of Triton's that mean something else should happen with a tensor."""


def _names(value: Any) -> Any:
    """The protocol's parameters are plain values, so that a list of names may come as a text with commas."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",")] if value else []
    return value


class TensorParameters(Wish):
    """What is said about one tensor; what is not known here changes nothing, and is passed over."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_would_be_missed(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if name.startswith(SERVER_SIDE):
                raise ValueError(f"`{name}` is an extension that is not offered here; see GET /v2")
        return value


class InputParameters(TensorParameters):
    binary_data_size: Annotated[StrictInt, Field(ge=0)] | None = None
    """How many bytes of the tensor stand behind the JSON."""


class OutputParameters(TensorParameters):
    binary_data: StrictBool | None = None
    """Whether the tensor is wanted as bytes behind the JSON; null is what the request says for all."""


class InferInput(Wish):
    name: str
    """`image`."""
    shape: Annotated[list[Axis], Field(min_length=1, max_length=MOST_AXES)]
    """How many pictures there are: `[n]`, or `[n, 1]`."""
    datatype: str
    """`BYTES`: each element is a whole picture file."""
    parameters: InputParameters = InputParameters()
    """What else is said about it."""
    data: list[Any] | None = None
    """The pictures in base64, for JSON cannot hold their bytes."""


class RequestedOutput(Wish):
    name: str
    """One of the outputs that the model's metadata lists."""
    parameters: OutputParameters = OutputParameters()
    """What else is said about it."""


class InferParameters(LookParameters):
    """What the detector should report."""

    classes: Annotated[list[ClassName], BeforeValidator(_names), Field(max_length=1000)] = []
    """Only these classes, by name: a list, or a text with commas; empty is all."""
    binary_data_output: StrictBool = False
    """Whether outputs are wanted as bytes behind the JSON, unless they say otherwise themselves."""


class InferRequest(Wish):
    model_config = ConfigDict(
        use_attribute_docstrings=True,
        extra="forbid",
        json_schema_extra={
            "example": {
                "id": "42",
                "parameters": {"score_threshold": 0.5},
                "inputs": [
                    {
                        "name": "image",
                        "shape": [1],
                        "datatype": "BYTES",
                        "data": ["/9j/4AAQSkZJRgABAQAAAQABAAD…"],
                    }
                ],
                "outputs": [{"name": "num_detections"}, {"name": "boxes"}],
            }
        },
    )

    id: str | None = None
    """Comes back with the answer."""
    parameters: InferParameters = InferParameters()
    """What the detector should report."""
    inputs: Annotated[list[InferInput], Field(min_length=1)]
    """One: the pictures."""
    outputs: list[RequestedOutput] = []
    """Which are wanted; none named is all."""


class InferOutput(Shape):
    model_config = example(**EXAMPLE_TENSOR)

    name: str
    """Of the tensor."""
    datatype: Datatype
    """Of its values."""
    shape: list[int]
    """Its axes; the first is the pictures."""
    parameters: dict[str, Any] = {}
    """`binary_data_size`, when its values stand behind the JSON."""
    data: list[Any] = []
    """Its values in a row, the last axis running fastest; absent when they stand behind the JSON."""


class InferAnswer(Shape):
    model_config = example(
        model_name="production", model_version=EXAMPLE_ID, id="42", outputs=[EXAMPLE_TENSOR]
    )

    model_name: str
    """As the request named it."""
    model_version: str
    """Id of the model that looked."""
    id: str = ""
    """As the request said; absent if it said none."""
    outputs: list[InferOutput]
    """In the order wanted."""


class ServerMetadata(Shape):
    model_config = example(
        name="harrier", version="0.1.0", extensions=["binary_tensor_data", "model_configuration"]
    )

    name: str
    """`harrier`."""
    version: str
    """Of Harrier."""
    extensions: list[str]
    """Of the protocol, as far as they are offered."""


class TensorMetadata(Shape):
    model_config = example(name="image", datatype="BYTES", shape=[-1])

    name: str
    """Of the tensor."""
    datatype: Datatype
    """Of its values."""
    shape: list[int]
    """Its axes; -1 is any length."""


class ModelMetadata(Shape):
    model_config = example(
        name="production",
        versions=[EXAMPLE_ID],
        platform="harrier",
        inputs=[{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        outputs=[{"name": "num_detections", "datatype": "INT32", "shape": [-1]}],
    )

    name: str
    """As the request named it: an id or alias."""
    versions: list[str]
    """One: the id of the model that has this id or alias now."""
    platform: str
    """`harrier`."""
    inputs: list[TensorMetadata]
    """What a request brings."""
    outputs: list[TensorMetadata]
    """What an answer holds."""


class ModelReady(Shape):
    model_config = example(name="production", ready=True)

    name: str
    """As the request named it."""
    ready: bool
    """Always true; a model that is not ready is an error."""


class ServerLive(Shape):
    model_config = example(live=True)

    live: bool
    """Always true."""


class ServerReady(Shape):
    model_config = example(ready=True)

    ready: bool
    """Always true; a server that is not ready answers 503."""


class TensorConfiguration(Shape):
    model_config = example(name="image", data_type="TYPE_STRING", dims=[-1])

    name: str
    """Of the tensor."""
    data_type: str
    """Of its values, as Triton calls it."""
    dims: list[int]
    """Its axes; -1 is any length."""


class ModelConfiguration(Shape):
    """As much of Triton's configuration of a model as its clients ask for before they begin."""

    model_config = example(
        name="production",
        platform="harrier",
        backend="harrier",
        max_batch_size=0,
        input=[{"name": "image", "data_type": "TYPE_STRING", "dims": [-1]}],
        output=[{"name": "num_detections", "data_type": "TYPE_INT32", "dims": [-1]}],
    )

    name: str
    """As the request named it."""
    platform: str
    """`harrier`."""
    backend: str
    """`harrier`."""
    max_batch_size: int
    """0: the shapes show the axis of the pictures themselves."""
    input: list[TensorConfiguration]
    """What a request brings."""
    output: list[TensorConfiguration]
    """What an answer holds."""


class IndexEntry(Shape):
    model_config = example(name="production", version=EXAMPLE_ID, state="READY", reason="")

    name: str
    """A name by which a model can be asked: its id, or its alias."""
    version: str
    """Its id."""
    state: str
    """`READY`: a model is there when it is complete."""
    reason: str
    """Empty."""
