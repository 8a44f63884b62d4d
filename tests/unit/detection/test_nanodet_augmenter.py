"""The pipeline of NanoDet-Plus: where boxes go, what colours become, and what a draw depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.data.augmenters import PictureSource, build_augmenter
from detection.data.augmenters.augmenter import LabelledPicture
from detection.data.batches import collate, normalise_batch
from detection.data.colours import brightened, contrasted, resaturated
from detection.data.draws import Purpose, draws
from detection.data.transforms import Sample
from detection.families.nanodet_plus import NanoDetAugmentationConfig
from detection.images import DecodedImage
from detection.input_convention import NANODET_KEEP_RATIO, NANODET_STRETCH, InputConvention
from detection.preprocess import fit_image
from detection.training.config import AugmentationConfig
from tests.npz import read_npz

STILL = NanoDetAugmentationConfig(
    scale=(1.0, 1.0), stretch=(1.0, 1.0), translate=0.0, colour=0.0, flip=0.0, keep_ratio=False
)
MOVED = NanoDetAugmentationConfig(scale=(0.6, 1.4), stretch=(0.8, 1.2), translate=0.2)
INPUT_HW = 64, 96
BOX = 20.0, 12.0, 60.0, 36.0
CROWD = 64.0, 0.0, 80.0, 48.0


def picture(
    size_wh: tuple[int, int] = (80, 48), boxes: Sequence[Sequence[float]] = (BOX,), reduced: int = 1
) -> LabelledPicture:
    """Return a dark picture whose boxes are bright."""
    pixels = np.full((size_wh[1], size_wh[0], 3), 40, np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = 220
    return LabelledPicture(
        DecodedImage(pixels[::reduced, ::reduced], *size_wh),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(len(boxes)),
        np.array([CROWD], np.float32),
    )


def sample(
    config: NanoDetAugmentationConfig = STILL,
    *,
    shown: LabelledPicture | None = None,
    key: int = 0,
    tail: bool = False,
    convention: InputConvention = NANODET_STRETCH,
) -> Sample:
    source = PictureSource(
        load=lambda index: shown or picture(), num_images=1, input_size_hw=INPUT_HW, convention=convention
    )
    return build_augmenter(config, source).sample(0, draws(0, Purpose.SAMPLE, 0, key), tail=tail)


def test_without_any_step_a_picture_is_that_of_serving() -> None:
    found = sample()
    assert found.pixels.dtype == np.float32
    np.testing.assert_allclose(found.boxes, [(24, 16, 72, 48)], atol=1e-4)
    np.testing.assert_allclose(found.crowds, [(76.8, 0, 96, 64)], atol=1e-4)
    images, _ = collate([found])
    trained = normalise_batch(images, NANODET_STRETCH)[0].numpy()
    served = fit_image(picture().image.pixels, INPUT_HW, NANODET_STRETCH).tensor
    inner = np.s_[:, 1:-1, 1:-1]  # the edge of an enlarged picture fades into the black around it
    np.testing.assert_allclose(trained[inner], served[inner], atol=0.05)


@pytest.mark.parametrize("reduced", [1, 2])
def test_kept_proportions_are_padded_as_in_serving(reduced: int) -> None:
    shown = picture((60, 80), [(12, 16, 48, 64)], reduced=reduced)
    config = replace(STILL, keep_ratio=True)
    found = sample(config, shown=shown, convention=NANODET_KEEP_RATIO)
    assert found.pixels.shape == (64, 96, 3)
    assert (found.pixels[:, 48:] == 114).all()
    assert (found.pixels[20:40, 16:36] == 220).all()
    np.testing.assert_allclose(found.boxes, [(9.6, 12.8, 38.4, 51.2)], atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rotate_degrees": 0.0, "shear_degrees": 0.0, "perspective": 0.4},
        {"scale": (0.3, 3.0), "keep_ratio": True},
    ],
)
def test_boxes_stay_on_their_objects(changes: dict[str, object]) -> None:
    config = replace(MOVED, colour=0.0, **changes)  # type: ignore[arg-type]
    convention = NANODET_KEEP_RATIO if config.keep_ratio else NANODET_STRETCH
    looked_at = 0
    for key in range(40):
        found = sample(config, key=key, convention=convention)
        assert found.pixels.shape == (64, 96, 3)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [96, 64, 96, 64]).all()
        for x1, y1, x2, y2 in found.boxes:
            inner = found.pixels[int(y1) + 2 : int(y2) - 2, int(x1) + 2 : int(x2) - 2]
            looked_at += inner.size > 0
            assert inner.size == 0 or inner.mean() > 180
    assert looked_at > 20


def test_the_tail_only_colours_and_mirrors() -> None:
    config = replace(MOVED, colour=0.0, flip=0.0)
    for key in range(5):
        np.testing.assert_array_equal(sample(config, key=key, tail=True).pixels, sample().pixels)
    turned = sample(replace(config, flip=1.0), tail=True)
    np.testing.assert_allclose(turned.boxes, [(24, 16, 72, 48)], atol=1e-4)
    assert sample(replace(config, colour=1.0), tail=True).pixels.tobytes() != sample().pixels.tobytes()


def test_a_sample_depends_on_its_draws_only() -> None:
    first = [sample(MOVED, key=key).pixels.tobytes() for key in range(6)]
    assert first == [sample(MOVED, key=key).pixels.tobytes() for key in range(6)]
    assert len(set(first)) == 6


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((10, 10, 10.9, 30), False),
        ((10, 10, 11, 30), True),
        ((10, 10, 30, 10.7), False),
        ((79.5, 10, 81, 30), False),
    ],
)
def test_boxes_with_a_side_below_a_pixel_are_removed(box: tuple[float, ...], kept: bool) -> None:
    found = sample(shown=picture(boxes=[BOX, box]))
    assert found.labels.tolist() == ([0, 1] if kept else [0])
    assert len(found.boxes) == len(found.labels)


def test_a_picture_without_boxes_is_a_sample_too() -> None:
    found = sample(MOVED, shown=picture(boxes=()))
    assert (found.boxes.shape, found.labels.shape) == ((0, 4), (0,))


def test_crowds_come_along_with_a_batch() -> None:
    crowded, bare = sample(), replace(sample(), crowds=np.zeros((0, 4), np.float32))
    _, targets = collate([crowded, bare])
    assert targets.crowds_BR4 is not None
    np.testing.assert_allclose(targets.crowds_BR4[0], [(76.8, 0, 96, 64)], atol=1e-4)
    assert not targets.crowds_BR4[1].any()
    halved = targets.scaled(0.5, 1.0).to("cpu").crowds_BR4
    assert halved is not None
    np.testing.assert_allclose(halved[0], [(38.4, 0, 48, 64)], atol=1e-4)
    assert collate([bare])[1].crowds_BR4 is None


def test_colours_are_not_clipped() -> None:
    pixels = np.array([[[200.0, 100.0, 50.0]]], np.float32)
    np.testing.assert_allclose(brightened(pixels, 100.0), [[[300, 200, 150]]])
    np.testing.assert_allclose(contrasted(pixels, 1.4), [[[280, 140, 70]]], rtol=1e-6)
    np.testing.assert_allclose(resaturated(pixels, 0.5), [[[200, 150, 125]]], rtol=1e-5)
    np.testing.assert_allclose(resaturated(pixels, 1.2), [[[200, 80, 20]]], rtol=1e-5)
    np.testing.assert_allclose(pixels, [[[200, 100, 50]]])


def test_the_normalised_input_is_the_originals(golden: Path) -> None:
    numbers = read_npz(golden / "nanodet_preproc.npz")
    pixels = torch.from_numpy(numbers["c0_img_bgr"]).permute(2, 0, 1)[None]
    found = normalise_batch(pixels, NANODET_STRETCH)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found, numbers["c0_normalised"], atol=1e-4)


def test_a_configuration_of_nobody_has_no_augmenter() -> None:
    source = PictureSource(
        load=lambda index: picture(), num_images=1, input_size_hw=INPUT_HW, convention=NANODET_STRETCH
    )
    with pytest.raises(TypeError, match="AugmentationConfig"):
        build_augmenter(AugmentationConfig(), source)
