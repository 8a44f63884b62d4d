"""A request for inference as it comes: the parts of its body, what its JSON asks, the pictures it brings."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from fastapi import Request
from pydantic import ValidationError

from app.api.faults import fault_at, invalid_input, pointer_to, problems_of
from app.api.strict_json import MOST_VALUES, strict_json
from app.api.suggestions import did_you_mean
from app.detect.errors import PictureTooLargeError
from app.errors import BadRequestError, HarrierError, PayloadTooLargeError
from app.settings import Settings
from app.v2.outputs import OUTPUTS
from app.v2.schemas import InferInput, InferRequest
from app.v2.tensors import TensorError, num_elements, split_elements

LENGTH_HEADER = "Inference-Header-Content-Length"
MOST_DIGITS = 12
SMALL_HEAD = 16 * 1024
"""Bytes of JSON that are read sooner than a thread would be found for them."""
IMAGE = "image"
BYTES = "BYTES"
MOST_AXES_OF_PICTURES = 2
VALUES_OF_A_PICTURE = 2
"""In JSON: a list of its own, and what parts it from the next."""

Pictures = list[bytes | HarrierError]


@dataclass(frozen=True, slots=True)
class Inference:
    """What is asked, and about which pictures."""

    request: InferRequest
    images: Pictures


async def read_inference(request: Request, settings: Settings, take: Callable[[int], None]) -> Inference:
    """Read a body in either of its forms. A picture that cannot be taken is noted in its place.

    Args:
        take: makes room for so many more bytes.

    Raises:
        HarrierError: the request as a whole is at fault, or there is no room.
    """
    pieces = []
    async for piece in request.stream():
        take(len(piece))
        pieces.append(piece)
    length = _head_length(request.headers.getlist(LENGTH_HEADER))
    body = b"".join(pieces)
    if (len(body) if length is None else length) <= SMALL_HEAD:
        return _read(body, length, settings)
    return await to_thread.run_sync(_read, body, length, settings)


def _read(body: bytes, head_length: int | None, settings: Settings) -> Inference:
    if head_length == 0:  # the whole body is the only element of the only input
        return Inference(_PLAIN, [_sized(body, settings)])
    if head_length is not None and head_length > len(body):
        raise BadRequestError(f"{LENGTH_HEADER} is {head_length}, and the body has {len(body)} bytes")
    head = _parsed(body[:head_length], settings)
    binary = memoryview(body)[len(body) if head_length is None else head_length :]
    _check_outputs(head)
    return Inference(head, _pictures(_only_input(head), binary, settings))


_PLAIN = InferRequest(inputs=[InferInput(name=IMAGE, shape=[1], datatype=BYTES)])


def _head_length(values: Sequence[str]) -> int | None:
    """Return how many bytes of the body are JSON; None for all."""
    if not values:
        return None
    text = values[0]
    if len(values) > 1 or not (text.isascii() and text.isdigit()) or len(text) > MOST_DIGITS:
        raise BadRequestError(f"{LENGTH_HEADER} must be the number of bytes of the JSON, once")
    return int(text)


def _parsed(content: bytes, settings: Settings) -> InferRequest:
    most_values = MOST_VALUES + settings.max_detect_images * VALUES_OF_A_PICTURE
    try:
        document = strict_json(content, most_values=most_values)
    except ValueError as error:
        raise BadRequestError(
            f"the body is not valid JSON: {error}; with tensors as bytes behind it, {LENGTH_HEADER} is needed"
        ) from None
    try:
        return InferRequest.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise invalid_input(problems_of(faults, shape=InferRequest, sent=document)) from None


def _check_outputs(head: InferRequest) -> None:
    seen: set[str] = set()
    for place, output in enumerate(head.outputs):
        pointer = pointer_to("outputs", place, "name")
        if output.name not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            raise fault_at(
                pointer, f"there is no such output{did_you_mean(output.name, OUTPUTS)}; there are {known}"
            )
        if output.name in seen:
            raise fault_at(pointer, f"{output.name} is wanted twice")
        seen.add(output.name)


def _only_input(head: InferRequest) -> InferInput:
    given = head.inputs[0]
    if len(head.inputs) > 1:
        raise fault_at("/inputs", f"a detector has one input, `{IMAGE}`; pictures are its elements")
    if given.name != IMAGE:
        raise fault_at("/inputs/0/name", f"a detector has one input, `{IMAGE}`")
    if given.datatype != BYTES:
        raise fault_at("/inputs/0/datatype", f"`{IMAGE}` is {BYTES}: each element is a whole picture file")
    if len(given.shape) > MOST_AXES_OF_PICTURES:
        raise fault_at(
            "/inputs/0/shape", f"`{IMAGE}` is [n] or [n, 1]: n whole picture files, whatever is in them"
        )
    return given


def _pictures(given: InferInput, binary: memoryview, settings: Settings) -> Pictures:
    num_images = num_elements(given.shape)
    if not num_images:
        raise fault_at("/inputs/0/shape", "there is no picture")
    if num_images > settings.max_detect_images:
        raise PayloadTooLargeError(f"at most {settings.max_detect_images} pictures may be sent at once")
    if given.parameters.binary_data_size is None:
        return _from_json(given, num_images, binary, settings)
    return _from_bytes(given, num_images, binary, settings)


def _from_bytes(given: InferInput, num_images: int, binary: memoryview, settings: Settings) -> Pictures:
    announced = given.parameters.binary_data_size
    if given.data is not None:
        raise fault_at("/inputs/0/data", "the tensor comes twice: here, and as bytes behind the JSON")
    if announced != len(binary):
        raise fault_at(
            "/inputs/0/parameters/binary_data_size",
            f"{announced} bytes are announced, and {len(binary)} stand behind the JSON",
        )
    try:
        return [_sized(element, settings) for element in split_elements(binary, num_images)]
    except TensorError as error:
        raise BadRequestError(f"the bytes of `{IMAGE}`: {error}") from None


def _from_json(given: InferInput, num_images: int, binary: memoryview, settings: Settings) -> Pictures:
    if given.data is None:
        raise fault_at("/inputs/0", "there is neither `data` nor the parameter `binary_data_size`")
    if len(binary):
        raise BadRequestError(f"{len(binary)} bytes stand behind the JSON, and no input is said to be there")
    texts = list(_flat(given.data))
    if len(texts) != num_images:
        raise fault_at("/inputs/0/data", f"there are {len(texts)} elements, and the shape has {num_images}")
    return [_decoded(place, text, settings) for place, text in enumerate(texts)]


def _flat(data: Sequence[Any]) -> Iterator[Any]:
    """Yield the elements of a tensor that is written as a list, or as a list of lists."""
    for each in data:
        if isinstance(each, list):
            yield from each
        else:
            yield each


def _decoded(place: int, text: Any, settings: Settings) -> bytes | HarrierError:
    pointer = pointer_to("inputs", 0, "data", place)
    if not isinstance(text, str):
        raise fault_at(pointer, "a picture in JSON is a text in base64")
    try:
        return _sized(base64.b64decode("".join(text.split()), validate=True), settings)
    except ValueError:  # also of characters beyond ASCII
        return fault_at(pointer, "not base64, in which JSON has to hold a picture")


def _sized(picture: bytes, settings: Settings) -> bytes | HarrierError:
    if len(picture) > settings.max_image_bytes:
        return PictureTooLargeError(f"a picture may have at most {settings.max_image_bytes} bytes")
    return picture
