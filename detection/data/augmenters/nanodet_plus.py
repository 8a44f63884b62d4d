"""The training pipeline of NanoDet-Plus: one warp, which also brings a picture to the input, then colour.

RangiLyu, "NanoDet-Plus", https://github.com/RangiLyu/nanodet

In the tail of a training only mirror and colour are left.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detection.data.augmenters.augmenter import LabelledPicture, PictureSource, build_augmenter
from detection.data.colours import FloatPixels, brightened, contrasted, resaturated
from detection.data.homography import Homography, homography, picture_to_target, projected, projected_boxes
from detection.data.transforms import BoxArray, Sample, shifted_boxes
from detection.families.nanodet_plus import NanoDetAugmentationConfig
from detection.preprocess import placement_of

MIN_SIDE = 1.0
"""Boxes with a side below so many pixels, of the picture or of the input, are removed."""
STAYS = 1.0, 1.0
"""The zoom that changes nothing."""
FULL = 255.0
"""Brightness of white."""


class NanoDetAugmenter:
    """See `detection.data.augmenters.augmenter.Augmenter`."""

    def __init__(self, config: NanoDetAugmentationConfig, source: PictureSource) -> None:
        self._config, self._source = config, source

    def sample(self, index: int, rng: Generator, *, tail: bool) -> Sample:
        """Return a picture augmented; boxes that it does not show any more are gone."""
        picture = self._source.load(index)
        size_wh = picture.image.size_wh
        moved = self._mirrored(size_wh, rng) if tail else self._moved(size_wh, rng)
        sample = self._projected(picture, moved)
        return self._placed(replace(sample, pixels=self._coloured(sample.pixels, rng)), size_wh)

    def _moved(self, size_wh: tuple[int, int], rng: Generator) -> Homography:
        """Draw everything that may happen to the place of things in a picture."""
        config, (width, height) = self._config, size_wh
        tilt = rng.uniform(-config.perspective, config.perspective, 2) / (width / 2, height / 2)
        stretch, translate = config.stretch or STAYS, config.translate or 0.0
        scale = rng.uniform(*(config.scale or STAYS))
        zoom = scale * rng.uniform(*stretch), scale * rng.uniform(*stretch)
        return homography(
            size_wh,
            tilt=(float(tilt[0]), float(tilt[1])),
            zoom=zoom,
            degrees=rng.uniform(-config.rotate_degrees, config.rotate_degrees),
            shear_degrees=tuple(rng.uniform(-config.shear_degrees, config.shear_degrees, 2)),
            mirror=rng.random() < config.flip,
            centre=tuple(rng.uniform(0.5 - translate, 0.5 + translate, 2)),
        )

    def _mirrored(self, size_wh: tuple[int, int], rng: Generator) -> Homography:
        return homography(size_wh, mirror=rng.random() < self._config.flip)

    def _projected(self, picture: LabelledPicture, moved: Homography) -> Sample:
        """Return a picture where it lies in the input, without padding."""
        source, size_wh = self._source, picture.image.size_wh
        _, target_wh = placement_of(size_wh, source.input_size_hw, source.convention)
        matrix = picture_to_target(size_wh, target_wh) @ moved
        boxes = projected_boxes(picture.boxes, matrix, target_wh)
        kept = _large(picture.boxes) & _large(boxes)
        return Sample(
            projected(picture.image.pixels, matrix, target_wh, picture_wh=size_wh),
            boxes[kept],
            picture.labels[kept],
            projected_boxes(picture.crowds, matrix, target_wh),
        )

    def _coloured(self, pixels: FloatPixels, rng: Generator) -> FloatPixels:
        """Return the pixels after each colour step that is drawn; nothing is clipped."""
        config = self._config
        if rng.random() < config.colour:
            pixels = brightened(pixels, FULL * rng.uniform(-config.brightness, config.brightness))
        if rng.random() < config.colour:
            pixels = contrasted(pixels, rng.uniform(*config.contrast))
        if rng.random() < config.colour:
            pixels = resaturated(pixels, rng.uniform(*config.saturation))
        return pixels

    def _placed(self, sample: Sample, size_wh: tuple[int, int]) -> Sample:
        """Pad a sample as serving does."""
        source = self._source
        if sample.size_wh == source.size_wh:
            return sample
        placement, _ = placement_of(size_wh, source.input_size_hw, source.convention)
        left, top = int(placement.offset_x), int(placement.offset_y)
        (width, height), canvas_hw = sample.size_wh, source.input_size_hw
        canvas = np.full((*canvas_hw, 3), source.convention.pad_value, np.float32)
        canvas[top : top + height, left : left + width] = sample.pixels
        boxes, crowds = (
            shifted_boxes(each, (1.0, 1.0), (left, top), source.size_wh)
            for each in (sample.boxes, sample.crowds)
        )
        return replace(sample, pixels=canvas, boxes=boxes, crowds=crowds)


def _large(boxes: BoxArray) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1))


build_augmenter.register(NanoDetAugmentationConfig, NanoDetAugmenter)
