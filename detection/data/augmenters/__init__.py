"""The training pipelines of the families. A new one is one module here and one imported name."""

from __future__ import annotations

from detection.data.augmenters import nanodet_plus, yolox
from detection.data.augmenters.augmenter import Augmenter, PictureSource, build_augmenter

__all__ = ["Augmenter", "PictureSource", "build_augmenter", "nanodet_plus", "yolox"]
