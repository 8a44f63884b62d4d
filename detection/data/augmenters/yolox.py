"""The training pipeline of YOLOX: mosaic → affine → mixup → colour → mirror → letterbox.

Every step has its probability; in the tail of a training only colour and mirror are left. A picture that is
not part of a mosaic and not mixed is coloured and mirrored before it is padded, so that the padding keeps the
grey and the place that it has in serving.
"""

from __future__ import annotations

from dataclasses import replace

from numpy.random import Generator

from detection.data.augmenters.augmenter import LabelledPicture, PictureSource, build_augmenter
from detection.data.mosaic import mosaic
from detection.data.transforms import (
    Sample,
    affine_matrix,
    mirrored,
    mixed,
    placed,
    resized,
    shifted_boxes,
    shifted_colours,
    warped,
    without_small_boxes,
)
from detection.families.yolox import YoloxAugmentationConfig
from detection.preprocess import placement_of, resize_image

MIN_SIDE = 1.0
"""Boxes with a side of at most so many pixels of the input are removed."""
MAX_BOXES = 120
MIXUP_TRIES = 10
"""Draws for a partner with a box, before mixup is left out."""


class YoloxAugmenter:
    """See `detection.data.augmenters.augmenter.Augmenter`."""

    def __init__(self, config: YoloxAugmentationConfig, source: PictureSource) -> None:
        self._config, self._convention = config, source.convention
        self._load, self._num_images = source.load, source.num_images
        self._size_hw, self._size_wh = source.input_size_hw, source.size_wh
        self._pad_value = round(source.convention.pad_value)

    def sample(self, index: int, rng: Generator, *, tail: bool) -> Sample:
        """Return a picture augmented; plain, when augmentation left no box of a picture that has some."""
        config, picture = self._config, self._load(index)
        if not tail and rng.random() < (config.mosaic or 0.0):
            sample = self._varied(self._mixed(self._mosaic(picture, rng), rng), rng)
        elif not tail and self._is_mixed_alone(picture, rng):
            plain = self._alone(picture, rng, tail=False, varied=False)
            sample = self._varied(self._blended(plain, rng), rng)
        else:
            sample = self._alone(picture, rng, tail=tail)
        sample = without_small_boxes(sample, min_side=MIN_SIDE, max_boxes=MAX_BOXES)
        if len(picture.boxes) and not len(sample.boxes):
            return without_small_boxes(self._letterboxed(picture), min_side=MIN_SIDE, max_boxes=MAX_BOXES)
        return sample

    def _mosaic(self, picture: LabelledPicture, rng: Generator) -> Sample:
        config, (width, height) = self._config, self._size_wh
        centre = int(rng.uniform(0.5 * width, 1.5 * width)), int(rng.uniform(0.5 * height, 1.5 * height))
        others = [self._load(int(index)) for index in rng.integers(self._num_images, size=3)]
        pieces = [self._fitted(each) for each in (picture, *others)]
        joined = mosaic(pieces, centre, (2 * width, 2 * height), pad_value=self._pad_value)
        low, high = config.mosaic_scale or (1.0, 1.0)
        matrix = affine_matrix(
            degrees=rng.uniform(-config.rotate_degrees, config.rotate_degrees),
            scale=rng.uniform(low, high),
            shear_degrees=tuple(rng.uniform(-config.shear_degrees, config.shear_degrees, 2)),
            shift=(
                rng.uniform(-config.translate, config.translate) * width,
                rng.uniform(-config.translate, config.translate) * height,
            ),
        )
        return warped(joined, matrix, self._size_wh, pad_value=self._pad_value)

    def _is_mixed_alone(self, picture: LabelledPicture, rng: Generator) -> bool:
        """Draw whether a picture without a mosaic meets another; without mixup nothing is drawn."""
        mixup = self._config.mixup or 0.0
        return mixup > 0.0 and len(picture.boxes) > 0 and rng.random() < mixup

    def _alone(self, picture: LabelledPicture, rng: Generator, *, tail: bool, varied: bool = True) -> Sample:
        """Return a single picture, `varied` or not; with the affine step zoomed and anywhere on the input."""
        if tail or rng.random() >= (self._config.affine or 0.0):
            return self._letterboxed(picture, rng if varied else None)
        fitted = self._fitted(picture, zoom=rng.uniform(*self._config.affine_scale))
        if varied:
            fitted = self._varied(fitted, rng)
        spare = [whole - part for whole, part in zip(self._size_wh, fitted.size_wh, strict=True)]
        x, y = (int(rng.integers(min(0, length), max(0, length) + 1)) for length in spare)
        return placed(fitted, (x, y), self._size_wh, pad_value=self._pad_value)

    def _letterboxed(self, picture: LabelledPicture, rng: Generator | None = None) -> Sample:
        """Return a picture as serving places it; varied where there is something to draw from."""
        placement, _ = placement_of(picture.image.size_wh, self._size_hw, self._convention)
        fitted = self._fitted(picture)
        if rng is not None:
            fitted = self._varied(fitted, rng)
        corner = int(placement.offset_x), int(placement.offset_y)
        return placed(fitted, corner, self._size_wh, pad_value=self._pad_value)

    def _fitted(self, picture: LabelledPicture, *, zoom: float = 1.0) -> Sample:
        """Return a picture scaled to the input, without padding."""
        size_wh = picture.image.size_wh
        placement, fitted_wh = placement_of(size_wh, self._size_hw, self._convention)
        scale = placement.scale_x * zoom, placement.scale_y * zoom
        if zoom != 1.0:
            fitted_wh = max(int(size_wh[0] * scale[0]), 1), max(int(size_wh[1] * scale[1]), 1)
        boxes = shifted_boxes(picture.boxes, scale, (0.0, 0.0), fitted_wh)
        return Sample(resize_image(picture.image.pixels, fitted_wh), boxes, picture.labels)

    def _mixed(self, sample: Sample, rng: Generator) -> Sample:
        """Blend with another picture, or not; a sample without boxes is left alone."""
        if not len(sample.boxes) or rng.random() >= (self._config.mixup or 0.0):
            return sample
        return self._blended(sample, rng)

    def _blended(self, sample: Sample, rng: Generator) -> Sample:
        """Blend with another picture that has a box, when one is drawn and the sample has boxes itself."""
        partner = self._drawn_partner(rng) if len(sample.boxes) else None
        if partner is None:
            return sample
        zoom = rng.uniform(*self._config.mixup_scale)
        size_wh = max(int(self._size_wh[0] * zoom), 1), max(int(self._size_wh[1] * zoom), 1)
        behind = resized(self._letterboxed(partner), size_wh)
        if rng.random() < 0.5:
            behind = mirrored(behind)
        x, y = (
            int(rng.integers(max(part - whole, 0) + 1))
            for whole, part in zip(self._size_wh, size_wh, strict=True)
        )
        return mixed(sample, behind, (x, y))

    def _drawn_partner(self, rng: Generator) -> LabelledPicture | None:
        for _ in range(MIXUP_TRIES):
            partner = self._load(int(rng.integers(self._num_images)))
            if len(partner.boxes):
                return partner
        return None

    def _varied(self, sample: Sample, rng: Generator) -> Sample:
        """Colour and mirror, each with its probability."""
        sample = self._coloured(sample, rng)
        return mirrored(sample) if rng.random() < self._config.flip else sample

    def _coloured(self, sample: Sample, rng: Generator) -> Sample:
        config = self._config
        if rng.random() >= (config.hsv or 0.0):
            return sample
        hue, saturation, value = (
            int(rng.integers(-gain, gain + 1)) if rng.random() < 0.5 else 0
            for gain in (config.hue, config.saturation, config.value)
        )
        return replace(sample, pixels=shifted_colours(sample.pixels, (hue, saturation, value)))


build_augmenter.register(YoloxAugmentationConfig, YoloxAugmenter)
