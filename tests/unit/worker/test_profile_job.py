"""What a profile refuses before it would be killed for it."""

from __future__ import annotations

import pytest
import torch

from detection.errors import ConfigError
from worker.jobs.profile_model import _images, check_room


def test_pictures_that_cannot_fit_into_the_memory_are_refused() -> None:
    one = 20 * 4 * 3 * 64 * 96
    check_room(2, (64, 96), memory_bytes=2 * one)
    with pytest.raises(ConfigError, match=r"/batch_size: 3 pictures of 64 x 96 do not fit into 0\.0 GiB"):
        check_room(3, (64, 96), memory_bytes=2 * one)


def test_images_are_noise_of_eight_bits_in_the_asked_precision() -> None:
    config = {"batch_size": 2, "input_size": [32, 64], "half": True}
    images = _images(config, torch.device("cpu"))
    assert (images.shape, images.dtype) == ((2, 3, 32, 64), torch.float16)
    assert 200 < float(images.max()) <= 255
