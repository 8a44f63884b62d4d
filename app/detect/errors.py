"""What can be wrong with one picture, or with the model that should look at it."""

from __future__ import annotations

from app.detect.wire import Refusal
from app.errors import (
    DrainingError,
    HarrierError,
    InternalError,
    InvalidInputError,
    OverloadedError,
    PayloadTooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)


class EngineFullError(OverloadedError):
    """The engine takes nothing until something leaves it; to clients it is as any other overload."""


class UnsupportedPictureError(UnsupportedMediaError):
    code, title = "unsupported_image", "Not a picture of a known kind"


class DamagedPictureError(InvalidInputError):
    code, title = "damaged_image", "The picture is damaged"


class PictureTooLargeError(PayloadTooLargeError):
    code, title = "image_too_large", "The picture is too large"


class ModelUnavailableError(UnavailableError):
    code, title = "model_unavailable", "The model cannot be loaded"


ERRORS: dict[Refusal, type[HarrierError]] = {
    Refusal.UNSUPPORTED_IMAGE: UnsupportedPictureError,
    Refusal.DAMAGED_IMAGE: DamagedPictureError,
    Refusal.IMAGE_TOO_LARGE: PictureTooLargeError,
    Refusal.OVERLOADED: OverloadedError,
    Refusal.FULL: EngineFullError,
    Refusal.EXPIRED: OverloadedError,
    Refusal.DRAINING: DrainingError,
    Refusal.MODEL_UNAVAILABLE: ModelUnavailableError,
    Refusal.INTERNAL: InternalError,
}
"""How each refusal of the engine is answered."""
