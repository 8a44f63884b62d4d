"""What the API and the engine say to each other: MessagePack over a unix socket, pictures beside it.

Many requests are under way on one connection; an answer carries the number of its request.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import msgspec

from detection.inference.passes import PLAIN, TtaPass
from detection.inference.serving import ServingShape
from detection.model_record import ModelRecord


class WeightsFile(msgspec.Struct, frozen=True):
    """One file of a model in the storage."""

    format: str
    key: str
    size_bytes: int
    sha256: str


class ServedModel(msgspec.Struct, frozen=True):
    """All that the engine must know to load a model; the same id is always the same weights."""

    id: str
    record: ModelRecord
    files: tuple[WeightsFile, ...]
    shape: ServingShape | None = None
    """How it is to be served, when a plan was pinned to it; None leaves it to the device."""


class Classification(msgspec.Struct, frozen=True, array_like=True):
    """What the second stage says of a box."""

    label: str
    class_id: int
    score: float


class Box(msgspec.Struct, frozen=True, array_like=True):
    """One detection, or one labelled box to be drawn; pixels of the picture as a person sees it."""

    x1: float
    y1: float
    x2: float
    y2: float
    class_id: int
    label: str
    score: float | None = None
    classification: Classification | None = None


class Detect(msgspec.Struct, frozen=True, tag="detect"):
    """Find objects in one picture."""

    id: int
    timeout_s: float
    model: ServedModel
    image: bytes
    score_threshold: float
    nms_iou: float | None
    max_detections: int
    class_ids: tuple[int, ...] | None
    annotate: bool
    passes: tuple[TtaPass, ...] = (PLAIN,)
    """How the network looks at it; what they see is merged."""
    classifier: ServedModel | None = None
    """Looks at every box afterwards."""
    instead: ServedModel | None = None
    """Looks when `model` is not in memory yet and this one is; `model` is loaded beside."""
    turned_away: int = 0
    """Pictures that were not brought here since the last one, for the engine was known to be full."""


class Render(msgspec.Struct, frozen=True, tag="render"):
    """Draw boxes into a picture and shrink it."""

    id: int
    timeout_s: float
    image: bytes
    boxes: tuple[Box, ...]
    max_side: int | None


class AskStatus(msgspec.Struct, frozen=True, tag="status"):
    id: int
    timeout_s: float


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """All models that are to stay in memory from now on, and to be loaded before anybody asks for them."""

    id: int
    models: tuple[ServedModel, ...]
    expected: tuple[ServedModel, ...] = ()
    """To be loaded as well while there is room for them, and evicted like any other."""


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """Load one model, and say when it is as quick as it will ever be."""

    id: int
    timeout_s: float
    model: ServedModel


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody waits for the answer any more."""

    id: int


Request = Detect | Render | AskStatus | Prepare | Hold | Cancel


class Timing(msgspec.Struct, frozen=True):
    """Where the time of one picture went."""

    decode_ms: float
    queue_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    batch_size: int
    passes: int = 1
    classify_ms: float = 0.0


class Detected(msgspec.Struct, frozen=True, tag="detected"):
    id: int
    width: int
    height: int
    boxes: tuple[Box, ...]
    timing: Timing
    queue_images: int
    model_id: str
    """The model that looked."""
    annotated: bytes | None = None
    """JPEG."""


class Rendered(msgspec.Struct, frozen=True, tag="rendered"):
    id: int
    jpeg: bytes


class Held(msgspec.Struct, frozen=True, tag="held"):
    """The list is known; its models may still be loading."""

    id: int


class Prepared(msgspec.Struct, frozen=True, tag="prepared"):
    id: int


class ChosenBy(StrEnum):
    """Who decided how a model is served."""

    PLAN = "plan"
    """It was pinned."""
    COMPARISON = "comparison"
    """The engine compared a faster backend with the default, and accepted it."""
    DEFAULT = "default"
    """The settings, or what the device is served best with."""


class ServedNow(msgspec.Struct, frozen=True, array_like=True):
    """How a model in the engine's memory is served."""

    model_id: str
    shape: ServingShape
    chosen_by: ChosenBy
    reason: str
    """For people; empty where there is nothing to say."""


class EngineStatus(msgspec.Struct, frozen=True, tag="status"):
    id: int
    pid: int
    device: str
    backend: str
    models: tuple[str, ...]
    model_bytes: int
    queue_images: int
    queue_bytes: int
    served: tuple[ServedNow, ...] = ()
    """Models in memory that are held, or that somebody has asked for."""


class Refusal(StrEnum):
    """Why the engine did not do what it was asked for."""

    UNSUPPORTED_IMAGE = "unsupported_image"
    DAMAGED_IMAGE = "damaged_image"
    IMAGE_TOO_LARGE = "image_too_large"
    OVERLOADED = "overloaded"
    FULL = "full"
    """As overloaded; and nothing is let in until something leaves."""
    EXPIRED = "expired"
    DRAINING = "draining"
    MODEL_UNAVAILABLE = "model_unavailable"
    INTERNAL = "internal"


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    id: int
    reason: Refusal
    message: str
    retry_after_s: int | None = None
    """When another attempt is likely to be served; None where nobody can tell."""


Answer = Detected | Rendered | Held | Prepared | EngineStatus | Refused

_PICTURES: dict[type[msgspec.Struct], str] = {
    Detect: "image",
    Render: "image",
    Detected: "annotated",
    Rendered: "jpeg",
}
"""The field of a message that travels beside it."""

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)

Message = TypeVar("Message", bound=msgspec.Struct)


class ProtocolError(Exception):
    """The other side sent something that is no message."""


def encode(message: Request | Answer) -> tuple[bytes, bytes]:
    """Return a message without its picture, and the picture."""
    field = _PICTURES.get(type(message))
    picture: bytes = (field and getattr(message, field)) or b""
    if field and picture:
        message = msgspec.structs.replace(message, **{field: b""})
    return _encoder.encode(message), picture


def decode_request(frame: tuple[memoryview, bytes]) -> Request:
    """Return the request that a frame holds.

    Raises:
        ProtocolError: it holds none.
    """
    return _decode(frame, _requests)


def decode_answer(frame: tuple[memoryview, bytes]) -> Answer:
    """Return the answer that a frame holds.

    Raises:
        ProtocolError: it holds none.
    """
    return _decode(frame, _answers)


def _decode(frame: tuple[memoryview, bytes], decoder: msgspec.msgpack.Decoder[Message]) -> Message:
    packed, picture = frame
    try:
        message = decoder.decode(packed)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"not a message: {error}") from error
    field = _PICTURES.get(type(message))
    if field and picture:
        msgspec.structs.force_setattr(message, field, picture)
    return message
