"""The crops of a training split, augmented: what a classifier learns from.

Detectors are never exact, so the square that is cut out is drawn a little larger, smaller or beside the one
that the rule asks for. Colours change little, for a classifier may be asked for a colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from detection.crops import Squares, cut, frame_of, regions_of, squares_around, touched_by
from detection.data.dataset import SampleKey
from detection.data.draws import Purpose, draws
from detection.data.picture_cache import PictureCache, ReadPicture
from detection.data.records import ImageRecord
from detection.data.sampler import Sampler
from detection.data.transforms import Sample, mirrored, shifted_colours
from detection.families.classifier import ClassifierAugmentationConfig
from detection.images import DecodedImage, Pixels
from detection.input_convention import InputConvention
from detection.model_record import CropRule
from detection.preprocess import place_image


class CropSamples:
    """Augmented crops by their key; equal keys give equal samples, everywhere."""

    def __init__(
        self,
        crops: Sequence[ImageRecord],
        read: ReadPicture,
        *,
        input_size_hw: tuple[int, int],
        rule: CropRule,
        augmentation: ClassifierAugmentationConfig,
        seed: int,
        cache_bytes: int = 0,
        convention: InputConvention,
    ) -> None:
        """Prepare for the crops of a split.

        Args:
            crops: pictures with one box each, at least one; see `detection.data.crop_records`.
            read: returns the bytes of a picture's file; called from several threads.
            cache_bytes: so much memory may hold decoded pictures.
            convention: decides how a crop comes to the input's size; `normalise_batch` sees to its colours.
        """
        self.seed = seed
        self.sampler = Sampler(len(crops), seed=seed)
        self._crops, self._rule, self._augmentation = crops, rule, augmentation
        self._size_hw, self._convention = input_size_hw, convention
        self._cache = PictureCache(read, input_size_hw=None, max_bytes=cache_bytes)

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Return a sample: crop (height, width, BGR), one box that is all of it, and its label.

        Raises:
            ImageError: a picture cannot be decoded.
        """
        rng = draws(self.seed, Purpose.SAMPLE, key.epoch, key.position)
        crop = self._crops[self.sampler.image_index(key.epoch, key.position)]
        pixels = self._cut(self._cache.picture(crop), crop, None if key.tail else rng)
        placed, _ = place_image(pixels, self._size_hw, self._convention)
        fitted = np.require(placed, requirements=["C", "W", "O"])  # perhaps it is a part of a kept picture
        height, width = self._size_hw
        whole = np.array([[0, 0, width, height]], np.float32)
        sample = Sample(fitted, whole, np.array([crop.boxes[0].class_id], np.int64))
        return self._varied(sample, rng)

    def _cut(self, picture: DecodedImage, crop: ImageRecord, rng: Generator | None) -> Pixels:
        """Return the pixels around a box; moved where there is something to draw from."""
        frame, box = frame_of(picture.size_wh, self._rule), crop.boxes[0]
        box_14 = np.array([[box.x1, box.y1, box.x2, box.y2]], np.float32)
        exact = squares_around(frame.to_input(box_14), self._rule)
        for squares in (exact if rng is None else self._moved(exact, rng), exact):
            pixels = cut(picture.pixels, regions_of(squares, frame, picture.size_wh)[0].tolist())
            if pixels is not None:
                return pixels
        x1, y1, x2, y2 = touched_by(box_14, picture.size_wh)[0].tolist()
        return picture.pixels[y1:y2, x1:x2]

    def _moved(self, squares_N3: Squares, rng: Generator) -> Squares:
        config, moved = self._augmentation, squares_N3.copy()
        moved[:, 2] *= rng.uniform(*config.scale)
        moved[:, :2] += rng.uniform(-config.translate, config.translate, 2) * squares_N3[:, 2:]
        return moved.astype(np.float32)

    def _varied(self, sample: Sample, rng: Generator) -> Sample:
        """Colour and mirror, each with its probability."""
        config = self._augmentation
        if rng.random() < config.colour:
            hue, saturation, value = (
                int(rng.integers(-most, most + 1)) for most in (config.hue, config.saturation, config.value)
            )
            sample = replace(sample, pixels=shifted_colours(sample.pixels, (hue, saturation, value)))
        return mirrored(sample) if rng.random() < config.flip else sample
