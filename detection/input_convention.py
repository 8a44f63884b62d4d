"""How a picture becomes the network's input: part of every model's record, never guessed. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class ChannelOrder(StrEnum):
    BGR = "bgr"
    RGB = "rgb"


class Resize(StrEnum):
    LETTERBOX = "letterbox"
    """Keep the aspect ratio, place at the top left, fill the rest with the pad value."""
    LETTERBOX_CENTRE = "letterbox-centre"
    """Keep the aspect ratio, place in the middle, fill the rest with the pad value."""
    STRETCH = "stretch"
    """Scale width and height independently to the input size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConvention:
    """network input = (picture in `order`, 0..255) * scale, minus mean, divided by std, per channel."""

    order: ChannelOrder = ChannelOrder.BGR
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: Resize = Resize.LETTERBOX
    pad_value: float = 114.0
    """Grey level of the padding in the picture, 0..255, before scale, mean and std."""

    @property
    def network_padding(self) -> tuple[float, float, float]:
        """What padding looks like to the network, per channel, after scale, mean and std.

        A model whose pictures are stretched has never seen padding. If they are normalised, it is padded with
        the mean, which is 0; so does the original NanoDet.
        """
        if self.resize is Resize.STRETCH and any(self.mean):
            return 0.0, 0.0, 0.0
        grey = round(self.pad_value) * self.scale
        first, second, third = ((grey - mean) / std for mean, std in zip(self.mean, self.std, strict=True))
        return first, second, third


YOLOX = InputConvention()
YOLOX_LEGACY = InputConvention(
    order=ChannelOrder.RGB, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
"""Weights of YOLOX's 0.1.0 era; fed with the other convention their AP is about 0."""

NANODET_STRETCH = InputConvention(
    mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395), resize=Resize.STRETCH, pad_value=0.0
)
"""What the published NanoDet-Plus weights were trained with."""
NANODET_KEEP_RATIO = replace(NANODET_STRETCH, resize=Resize.LETTERBOX, pad_value=114.0)
"""NanoDet's `keep_ratio`, padded at the right and at the bottom: there with zeros after normalising, here
with the grey that comes nearest."""

IMAGENET = replace(YOLOX_LEGACY, resize=Resize.STRETCH)
"""What the published classifiers were trained with, and every classifier here: crops are stretched."""

NAMED_CONVENTIONS = {
    "yolox": YOLOX,
    "yolox-legacy": YOLOX_LEGACY,
    "nanodet-stretch": NANODET_STRETCH,
    "nanodet-keep-ratio": NANODET_KEEP_RATIO,
    "imagenet": IMAGENET,
}
"""What `input_convention` of an import may be called."""
