"""Training samples: keyed draws, honest boxes, the same for every number of workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.data.augmenters import yolox as augment
from detection.data.augmenters.yolox import MAX_BOXES
from detection.data.dataset import (
    SampleKey,
    TrainingDataset,
    collate,
    normalise_batch,
    resize_batch,
    training_batches,
)
from detection.data.picture_cache import PictureCache
from detection.data.records import BoxRecord, ImageRecord, Split
from detection.data.transforms import Sample
from detection.errors import DamagedImageError
from detection.families.yolox import YoloxAugmentationConfig, YoloxConfig
from detection.input_convention import YOLOX, YOLOX_LEGACY, InputConvention, Resize
from detection.preprocess import fit_image, placement_of
from detection.targets import Targets
from detection.training.plan import TrainingPlan
from detection.training.recipes import resolve
from tests import pictures

PLAIN = YoloxAugmentationConfig(mosaic=0.0, affine=0.0, mixup=0.0, hsv=0.0, flip=0.0)
FULL = YoloxAugmentationConfig(mosaic=0.5, mosaic_scale=(0.5, 1.5), affine=0.5, mixup=0.5, hsv=0.5)
SIZES = [(64, 48), (48, 64), (100, 30), (33, 33), (400, 300)]


class Pictures:
    """A small dataset in memory: one white box on black in every picture but the last."""

    def __init__(self, boxes: int = 1) -> None:
        self.images = []
        self.files: dict[str, bytes] = {}
        self.num_reads = 0
        for number, (width, height) in enumerate(SIZES):
            pixels = np.zeros((height, width, 3), np.uint8)
            x1, y1, x2, y2 = width // 4, height // 4, width // 2, height // 2
            records: tuple[BoxRecord, ...] = ()
            if number < len(SIZES) - 1:
                pixels[y1:y2, x1:x2] = 255
                records = (BoxRecord(class_id=number, x1=x1, y1=y1, x2=x2, y2=y2),) * boxes
            name = f"{number:06d}"
            self.files[name] = pictures.png(pixels)
            self.images.append(
                ImageRecord(
                    id=name, file_name=name, width=width, height=height, split=Split.TRAIN, boxes=records
                )
            )

    def read(self, image: ImageRecord) -> bytes:
        self.num_reads += 1
        return self.files[image.id]


def dataset(
    augmentation: YoloxAugmentationConfig = FULL,
    *,
    source: Pictures | None = None,
    seed: int = 0,
    cache_bytes: int = 10**7,
    convention: InputConvention = YOLOX,
    size_hw: tuple[int, int] = (64, 96),
) -> TrainingDataset:
    source = source or Pictures()
    return TrainingDataset(
        source.images,
        source.read,
        input_size_hw=size_hw,
        augmentation=augmentation,
        seed=seed,
        cache_bytes=cache_bytes,
        convention=convention,
    )


def digest(batches: Iterator[tuple[Tensor, Targets]]) -> list[str]:
    return [
        hashlib.sha256(
            images.numpy().tobytes()
            + targets.boxes_BG4.numpy().tobytes()
            + targets.labels_BG.numpy().tobytes()
            + targets.valid_BG.numpy().tobytes()
        ).hexdigest()
        for images, targets in batches
    ]


def test_plain_sample_is_what_serving_sees() -> None:
    source = Pictures()
    plain = dataset(PLAIN, source=source)
    for position in range(len(SIZES)):
        sample = plain[SampleKey(0, position, tail=False)]
        image = source.images[plain.sampler.image_index(0, position)]
        served = fit_image(
            pictures_of(source, image), (64, 96), YOLOX, picture_size_wh=(image.width, image.height)
        )

        np.testing.assert_array_equal(sample.pixels.transpose(2, 0, 1), served.tensor)
        stated = np.array([(b.x1, b.y1, b.x2, b.y2) for b in image.boxes], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(sample.boxes, served.placement.to_input(stated), atol=1e-4)


def pictures_of(source: Pictures, image: ImageRecord) -> np.ndarray:
    return PictureCache(source.read, input_size_hw=(64, 96), max_bytes=0).picture(image).pixels


@pytest.mark.parametrize("resize", Resize)
def test_plain_sample_follows_the_convention(resize: Resize) -> None:
    convention = InputConvention(resize=resize, pad_value=7)
    source = Pictures()
    plain = dataset(PLAIN, source=source, convention=convention)

    sample = plain[SampleKey(0, 0, tail=False)]

    image = source.images[plain.sampler.image_index(0, 0)]
    served = fit_image(pictures_of(source, image), (64, 96), convention)
    np.testing.assert_array_equal(sample.pixels.transpose(2, 0, 1), served.tensor)


@pytest.mark.parametrize(
    "augmentation",
    [
        FULL,
        replace(PLAIN, mosaic=1.0, mosaic_scale=(0.1, 2.0)),
        replace(PLAIN, affine=1.0),
        replace(PLAIN, affine=1.0, affine_scale=(0.5, 2.0)),
        replace(PLAIN, mixup=1.0),
        replace(PLAIN, hsv=1.0, hue=90, saturation=255, value=255),
    ],
)
def test_samples_are_well_formed(augmentation: YoloxAugmentationConfig) -> None:
    samples = dataset(augmentation)
    for position in range(60):
        sample = samples[SampleKey(1, position, tail=False)]

        assert sample.pixels.shape == (64, 96, 3)
        assert sample.pixels.dtype == np.uint8
        assert sample.boxes.dtype == np.float32
        assert len(sample.boxes) == len(sample.labels) <= MAX_BOXES
        assert (sample.boxes >= 0).all()
        assert (sample.boxes <= [96, 64, 96, 64]).all()
        assert (sample.boxes[:, 2:] - sample.boxes[:, :2] > 1).all()


@pytest.mark.parametrize(
    "augmentation",
    [
        replace(PLAIN, mosaic=1.0, mosaic_scale=(0.8, 1.2), rotate_degrees=0.0, shear_degrees=0.0),
        replace(PLAIN, affine=1.0),
        replace(PLAIN, flip=1.0),
    ],
)
def test_boxes_stay_on_their_objects(augmentation: YoloxAugmentationConfig) -> None:
    samples = dataset(augmentation, size_hw=(128, 128))
    num_boxes = 0
    for position in range(40):
        sample = samples[SampleKey(0, position, tail=False)]
        for x1, y1, x2, y2 in sample.boxes:
            if x2 - x1 < 4 or y2 - y1 < 4:
                continue
            num_boxes += 1
            inner = sample.pixels[int(y1) + 2 : int(y2) - 1, int(x1) + 2 : int(x2) - 1]
            assert inner.size == 0 or inner.mean() > 200
    assert num_boxes > 20


def test_the_tail_knows_neither_mosaic_nor_affine_nor_mixup() -> None:
    full = dataset(replace(FULL, mosaic=1.0, mixup=1.0, hsv=0.0, flip=0.0))
    plain = dataset(PLAIN)
    for position in range(10):
        key = SampleKey(4, position, tail=True)
        np.testing.assert_array_equal(full[key].pixels, plain[key].pixels)
        np.testing.assert_array_equal(full[key].boxes, plain[key].boxes)


def test_colour_leaves_the_padding_grey() -> None:
    samples = dataset(replace(PLAIN, hsv=1.0), size_hw=(96, 192))
    for position in range(10):
        pixels = samples[SampleKey(0, position, tail=True)].pixels
        assert (pixels[-1, -1] == 114).all()


def test_a_mirrored_picture_is_padded_where_serving_pads() -> None:
    source, size_hw = Pictures(), (96, 192)
    turned = dataset(replace(PLAIN, flip=1.0), source=source, size_hw=size_hw)
    plain = dataset(PLAIN, source=source, size_hw=size_hw)
    for position in range(len(SIZES)):
        key = SampleKey(0, position, tail=True)
        image = source.images[plain.sampler.image_index(0, position)]
        _, (width, height) = placement_of((image.width, image.height), size_hw, YOLOX)
        expected = plain[key].pixels.copy()
        expected[:height, :width] = expected[:height, :width][:, ::-1]
        np.testing.assert_array_equal(turned[key].pixels, expected)
        boxes = plain[key].boxes
        np.testing.assert_allclose(turned[key].boxes[:, 0], width - boxes[:, 2], atol=1e-4)


def test_a_sample_depends_on_its_key_only() -> None:
    forwards, backwards = dataset(), dataset(cache_bytes=0)
    keys = [SampleKey(epoch, position, tail=False) for epoch in (0, 1) for position in range(12)]
    first = {key: forwards[key] for key in keys}
    for key in reversed(keys):
        np.testing.assert_array_equal(backwards[key].pixels, first[key].pixels)
        np.testing.assert_array_equal(backwards[key].boxes, first[key].boxes)
    assert len({sample.pixels.tobytes() for sample in first.values()}) > 15


def test_another_seed_gives_other_samples() -> None:
    key = SampleKey(0, 0, tail=False)

    assert dataset(seed=1)[key].pixels.tobytes() != dataset(seed=2)[key].pixels.tobytes()


def test_augmentation_that_leaves_no_box_is_taken_back() -> None:
    source = Pictures()
    gone = dataset(replace(PLAIN, affine=1.0, affine_scale=(0.01, 0.02)), source=source)
    plain = dataset(PLAIN, source=source)
    for position in range(len(SIZES)):
        key = SampleKey(0, position, tail=False)
        if len(plain[key].boxes):
            np.testing.assert_array_equal(gone[key].pixels, plain[key].pixels)
            np.testing.assert_array_equal(gone[key].boxes, plain[key].boxes)


def test_crowds_are_no_targets_and_boxes_are_limited() -> None:
    source = Pictures(boxes=MAX_BOXES + 5)
    crowd = replace(source.images[0].boxes[0], crowd=True)
    source.images[0] = replace(source.images[0], boxes=(crowd, crowd))
    samples = dataset(PLAIN, source=source)
    counts = {
        samples.sampler.image_index(0, position): len(samples[SampleKey(0, position, tail=False)].boxes)
        for position in range(len(SIZES))
    }

    assert counts == {0: 0, 1: MAX_BOXES, 2: MAX_BOXES, 3: MAX_BOXES, 4: 0}


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
@pytest.mark.parametrize("affine", [0.0, 1.0])
def test_mixup_comes_before_colour_and_mirror(
    mosaic: float, affine: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("mixed", "shifted_colours", "mirrored"):
        step = getattr(augment, name)
        monkeypatch.setattr(
            augment, name, lambda *given, name=name, step=step: (steps.append(name), step(*given))[1]
        )
    chosen = replace(FULL, mosaic=mosaic, affine=affine, mixup=1.0, mixup_scale=(1.0, 1.0), hsv=1.0, flip=1.0)

    dataset(chosen)[SampleKey(epoch=0, position=0, tail=False)]

    assert steps[-2:] == ["shifted_colours", "mirrored"]
    assert steps.count("shifted_colours") == 1
    assert "mixed" in steps[:-2]


def test_mixup_without_any_partner_is_left_out() -> None:
    source = Pictures()
    source.images = [source.images[0], *[replace(image, boxes=()) for image in source.images[1:]]]
    samples = dataset(replace(PLAIN, mixup=1.0), source=source)

    for position in range(10):
        assert len(samples[SampleKey(0, position, tail=False)].boxes) <= 2
    source.images[0] = replace(source.images[0], boxes=())
    assert len(dataset(replace(PLAIN, mixup=1.0), source=source)[SampleKey(0, 0, tail=False)].boxes) == 0


def test_pictures_are_decoded_once_while_there_is_room() -> None:
    source = Pictures()
    with_room, without = dataset(PLAIN, source=source), dataset(PLAIN, source=source, cache_bytes=0)
    for position in range(20):
        with_room[SampleKey(0, position, tail=False)]
    assert source.num_reads == len(SIZES)
    for position in range(20):
        without[SampleKey(0, position, tail=False)]
    assert source.num_reads == len(SIZES) + 20


def test_cached_pixels_cannot_be_changed_by_accident() -> None:
    source = Pictures()
    picture = PictureCache(source.read, input_size_hw=(64, 64), max_bytes=10**6).picture(source.images[0])

    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0, 0] = 1


@pytest.mark.parametrize("workers", [1, 3, None])
def test_workers_do_not_change_the_batches(workers: int | None) -> None:
    inline = digest(training_batches(dataset(), batch_size=4, epoch=1, workers=0))

    assert digest(training_batches(dataset(), batch_size=4, epoch=1, workers=workers)) == inline
    assert len(inline) == 2


def test_an_epoch_can_be_entered_anywhere() -> None:
    whole = digest(training_batches(dataset(), batch_size=2, epoch=5, workers=0))
    assert len(whole) == 3

    for start in range(4):
        rest = digest(training_batches(dataset(), batch_size=2, epoch=5, start_step=start, workers=2))
        assert rest == whole[start:]


def test_ranks_together_compute_the_batch_of_one() -> None:
    images, targets = next(training_batches(dataset(), batch_size=4, epoch=0, workers=0))
    parts = [
        next(training_batches(dataset(), batch_size=4, epoch=0, rank=rank, world=2, workers=0))
        for rank in (0, 1)
    ]

    together = torch.stack([parts[0][0], parts[1][0]], dim=1).flatten(0, 1)
    assert torch.equal(together, images)
    assert targets.valid_BG.sum() == sum(int(part.valid_BG.sum()) for _, part in parts)
    with pytest.raises(ValueError, match="ranks"):
        training_batches(dataset(), batch_size=3, epoch=0, world=2)


@pytest.mark.parametrize("batch_size", [2, 4, 6])
@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_has_the_steps_of_the_plan_on_any_number_of_ranks(batch_size: int, world: int) -> None:
    """Also where the ranks do not divide the pictures evenly."""
    data = dataset()
    config = resolve(YoloxConfig(batch_size=batch_size, epochs=1), num_images=len(data))
    expected = TrainingPlan(config, num_images=len(data)).total_steps
    for rank in range(world):
        ranks = training_batches(data, batch_size=batch_size, epoch=0, rank=rank, world=world, workers=0)
        assert [len(images) for images, _ in ranks] == [batch_size // world] * expected


def test_a_consumer_may_stop_early() -> None:
    batches = training_batches(dataset(), batch_size=1, epoch=0, workers=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_an_error_of_its_kind(workers: int) -> None:
    source = Pictures()
    source.files = {name: data[:60] for name, data in source.files.items()}

    with pytest.raises(DamagedImageError):
        list(training_batches(dataset(source=source), batch_size=2, epoch=0, workers=workers))


def test_collate_pads_targets() -> None:
    samples = [
        Sample(pictures.noise(8, 6), np.zeros((count, 4), np.float32), np.full(count, 7))
        for count in (2, 0, 1)
    ]

    images, targets = collate(samples)

    assert images.shape == (3, 3, 6, 8)
    assert images.dtype == torch.uint8
    assert targets.valid_BG.tolist() == [[True, True], [False, False], [True, False]]
    assert targets.labels_BG[2, 0] == 7


@pytest.mark.parametrize("convention", [YOLOX, YOLOX_LEGACY])
def test_normalised_batch_is_what_serving_computes(convention: InputConvention) -> None:
    picture = pictures.noise(32, 32)
    served = fit_image(picture, (32, 32), convention).tensor
    batch, _ = collate([Sample(picture, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))])

    result = normalise_batch(batch, convention)

    assert result.dtype == torch.float32
    np.testing.assert_allclose(result[0].numpy(), served, rtol=1e-5, atol=1e-6)


def test_resized_batch_carries_its_boxes() -> None:
    images = torch.rand(2, 3, 32, 64)
    targets = Targets.from_lists(
        [torch.tensor([[8.0, 8, 16, 16]])] * 2, [torch.zeros(1, dtype=torch.int64)] * 2
    )

    smaller, scaled = resize_batch(images, targets, (16, 128))

    assert smaller.shape == (2, 3, 16, 128)
    assert scaled.boxes_BG4[0, 0].tolist() == [16, 4, 32, 8]
    same, unscaled = resize_batch(images, targets, (32, 64))
    assert same is images
    assert unscaled is targets
