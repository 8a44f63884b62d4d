"""Several looks at one picture: the original's numbers, boxes there and back, one answer in the end."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.architectures import ARCHITECTURES
from detection.boxes import cxcywh_to_xyxy
from detection.candidates import CHOOSING_BYTES
from detection.errors import ImageError
from detection.inference.backends.onnx_runtime import OnnxRuntimeBackend
from detection.inference.passes import (
    DEFAULT_PASSES,
    Flip,
    TtaPass,
    describe_passes,
    passes_as_json,
    passes_of,
)
from detection.inference.predictor import DetectOptions, Prediction, Predictor
from detection.inference.scaling import scale_img
from detection.inference.tta import make_view, map_back, merge_passes, view_bytes, view_size_hw
from detection.input_convention import NANODET_KEEP_RATIO, NANODET_STRETCH, YOLOX, YOLOX_LEGACY
from detection.model_record import ModelRecord
from tests.npz import read_npz
from tests.pictures import jpeg, noise, png, quadrants
from tests.published import tiny_graph

SIZE_HW = (96, 128)
RECORD = ARCHITECTURES["yolox-nano"].record(classes=("cat", "dog"), input_size_hw=SIZE_HW)
SURE = DetectOptions(score_threshold=0.5)
EVERY_PASS = [TtaPass(scale, flip) for scale, flip in itertools.product((1.0, 0.83, 0.67, 1.5), Flip)]


def test_boxes_of_the_original_are_mapped_back_and_put_together(golden: Path) -> None:
    check_merging(read_npz(golden / "tta_merge.npz"))


def test_the_views_of_the_original(reference: Path) -> None:
    numbers = read_npz(reference / "golden" / "tta_merge.npz")
    check_merging(numbers)
    images = torch.from_numpy(numbers["x"])
    for place, look in enumerate(DEFAULT_PASSES):
        flipped = images.flip(-1) if look.flip is Flip.LEFT_RIGHT else images
        view = scale_img(flipped, look.scale, multiple=32, pad_value=0.447)
        expected = torch.from_numpy(numbers[f"pass{place}_input"])
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-5)
        assert view_size_hw(look, RECORD) == tuple(expected.shape[2:])


def check_merging(numbers: dict[str, Any]) -> None:
    raws = [torch.from_numpy(numbers[f"pass{place}_raw_cxcywh_obj_cls"])[0] for place in range(3)]
    merged = torch.from_numpy(numbers["merged"])[0]
    boxes, scores = merge_passes(
        [cxcywh_to_xyxy(raw[:, :4]) for raw in raws], [raw[:, 4:] for raw in raws], DEFAULT_PASSES, SIZE_HW
    )
    torch.testing.assert_close(boxes, cxcywh_to_xyxy(merged[:, :4]), rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, merged[:, 4:], rtol=0, atol=1e-5)


def there(boxes_P4: Tensor, look: TtaPass) -> Tensor:
    """Map boxes into a view, corner by corner."""
    height, width = SIZE_HW
    mapped = []
    for x1, y1, x2, y2 in boxes_P4.tolist():
        corners = [(x, y) for x in (x1, x2) for y in (y1, y2)]
        if look.flip is Flip.LEFT_RIGHT:
            corners = [(width - x, y) for x, y in corners]
        if look.flip is Flip.UP_DOWN:
            corners = [(x, height - y) for x, y in corners]
        across, down = zip(*((x * look.scale, y * look.scale) for x, y in corners), strict=True)
        mapped.append([min(across), min(down), max(across), max(down)])
    return torch.tensor(mapped)


@pytest.mark.parametrize("look", EVERY_PASS, ids=str)
def test_boxes_come_back_from_every_pass(look: TtaPass) -> None:
    corners = torch.rand(20, 2, 2, generator=torch.Generator().manual_seed(0)) * 90
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    torch.testing.assert_close(map_back(there(boxes, look), look, SIZE_HW), boxes, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("flip", Flip)
def test_flipping_twice_is_not_flipping(flip: Flip) -> None:
    image = np.random.default_rng(0).normal(size=(3, *SIZE_HW)).astype(np.float32)
    once = make_view(image, TtaPass(1.0, flip), RECORD)
    assert (flip is Flip.NONE) == np.array_equal(once, image)
    np.testing.assert_array_equal(make_view(once, TtaPass(1.0, flip), RECORD), image)


def test_flips_turn_the_right_axis() -> None:
    image = np.arange(3 * 96 * 128, dtype=np.float32).reshape(3, 96, 128)
    np.testing.assert_array_equal(make_view(image, TtaPass(1.0, Flip.LEFT_RIGHT), RECORD), image[:, :, ::-1])
    np.testing.assert_array_equal(make_view(image, TtaPass(1.0, Flip.UP_DOWN), RECORD), image[:, ::-1])


@pytest.mark.parametrize(
    ("convention", "padding"),
    [
        (YOLOX, (114, 114, 114)),
        (YOLOX_LEGACY, (-0.1657, -0.0402, 0.1825)),
        (NANODET_STRETCH, (0, 0, 0)),
        (NANODET_KEEP_RATIO, (0.1825, -0.0399, -0.1657)),
    ],
)
def test_a_view_is_padded_as_the_model_pads(convention: Any, padding: tuple[float, ...]) -> None:
    record = ModelRecord(
        architecture="nanodet-plus-m",
        classes=("cat",),
        input_size_hw=(64, 64),
        input_convention=convention,
    )
    view = make_view(np.full((3, 64, 64), 5, np.float32), TtaPass(0.5), record)
    assert view.shape == (3, 64, 64), "NanoDet-Plus wants multiples of 64"
    np.testing.assert_allclose(view[:, :32, :32], 5, rtol=1e-6)
    np.testing.assert_allclose(view[:, -1, -1], padding, atol=1e-3)
    np.testing.assert_array_equal(view[:, 32:, :], view[:, -1:, -1:].repeat(32, 1).repeat(64, 2))


def test_the_memory_of_views_is_known_before_they_are_made() -> None:
    sizes = [view_size_hw(look, RECORD) for look in DEFAULT_PASSES]
    assert sizes == [(96, 128), (96, 128), (96, 96)]
    pixels = sum(height * width for height, width in sizes)
    priors = sum(height * width // stride**2 for height, width in sizes for stride in (8, 16, 32))
    tensors = 4 * (3 * pixels + 6 * priors)
    chosen_from = {True: priors, False: len(RECORD.classes) * priors}
    for best_only, scores in chosen_from.items():
        record = replace(RECORD, one_label_per_prior=best_only)
        assert 1 <= view_bytes(DEFAULT_PASSES, record) / (tensors + CHOOSING_BYTES * scores) < 1.2


class WhiteSpot:
    """Sees one box: around the pixels that are white, in whatever view."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes.append(tuple(images_BCHW.shape))
        boxes = []
        for image_CHW in images_BCHW:
            down, across = (image_CHW[0] > 200).nonzero(as_tuple=True)
            boxes.append([[across.min(), down.min(), across.max() + 1, down.max() + 1]])
        return torch.tensor(boxes).float(), torch.tensor([[[0.9, 0.1]]]).expand(len(boxes), 1, 2)


def with_spot(x: int, y: int) -> bytes:
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[y : y + 24, x : x + 32] = 255
    return png(pixels)


def predictions(answers: list[Prediction | ImageError]) -> list[Prediction]:
    return [answer for answer in answers if isinstance(answer, Prediction)]


@pytest.mark.parametrize("look", EVERY_PASS, ids=str)
def test_every_pass_finds_the_same_spot(look: TtaPass) -> None:
    options = DetectOptions(score_threshold=0.5, passes=(look,))
    (answer,) = predictions(Predictor(WhiteSpot(), RECORD).predict([with_spot(8, 64)], options))
    assert answer.detections.boxes_N4.tolist() == [pytest.approx([8, 64, 40, 88], abs=2.2)]
    assert answer.timing.passes == 1


def test_passes_of_several_pictures_run_together_and_become_one_box_each() -> None:
    backend = WhiteSpot()
    options = DetectOptions(score_threshold=0.5, passes=DEFAULT_PASSES)
    pictures = [with_spot(8, 64), b"no picture", with_spot(80, 0)]
    answers = Predictor(backend, RECORD).predict(pictures, options)
    assert isinstance(answers[1], ImageError)
    found = predictions(answers)
    assert [len(each.detections) for each in found] == [1, 1]
    assert found[1].detections.boxes_N4[0].tolist() == pytest.approx([80, 0, 112, 24], abs=2.2)
    assert backend.sizes == [(2, 3, 96, 128), (2, 3, 96, 128), (2, 3, 96, 96)]
    assert {each.timing.passes for each in found} == {3}
    assert {each.timing.batch_size for each in found} == {2}


def test_a_plain_pass_alone_is_the_plain_path() -> None:
    picture = jpeg(quadrants(128, 96))
    plain, one = (
        predictions(Predictor(WhiteSpot(), RECORD).predict([picture], options))
        for options in (SURE, DetectOptions(score_threshold=0.5, passes=passes_of([1], ["none"])))
    )
    assert torch.equal(plain[0].detections.boxes_N4, one[0].detections.boxes_N4)


def test_views_of_different_sizes_in_one_batch_are_run_apart_and_answered_in_order() -> None:
    predictor = Predictor(WhiteSpot(), RECORD)
    prepared = [predictor.prepare(with_spot(8, 64)), predictor.prepare(with_spot(80, 0))]
    small = [predictor.view(each, TtaPass(0.5)) for each in prepared]
    mixed = [prepared[0], small[1], small[0], prepared[1]]
    answers = predictor.infer(mixed)
    expected = [predictor.infer([each])[0].boxes_P4 for each in mixed]
    assert [each.boxes_P4.tolist() for each in answers] == [each.tolist() for each in expected]
    assert [each.batch_size for each in answers] == [2, 2, 2, 2]
    assert predictor.infer([]) == []


def test_a_picture_is_prepared_once_and_its_time_holds_that_of_the_views() -> None:
    predictor = Predictor(WhiteSpot(), RECORD)
    prepared = predictor.prepare(png(noise(128, 96)))
    assert predictor.view(prepared, TtaPass()) is prepared
    view = predictor.view(prepared, TtaPass(0.5))
    assert view.fitted.placement == prepared.fitted.placement
    (seen,) = predictor.detect([prepared], DetectOptions(passes=passes_of([1, 0.5], ["none", "none"])))
    assert seen.timing.preprocess_ms > prepared.preprocess_ms


@pytest.mark.parametrize(
    ("scales", "flips", "problem"),
    [
        ([1.0], [], "there are 1 `scales` and 0 `flips`"),
        ([], [], "there are 0 passes; there should be 1 to 8"),
        ([1.0] * 9, ["none"] * 9, "there are 9 passes"),
        ([0.05], ["none"], "the scale 0.05 is not between 0.1 and 2"),
        ([float("nan")], ["none"], "the scale nan is not between"),
        ([1.0], ["sideways"], "'sideways' is not a valid Flip"),
        ([2.0, 2.0, 0.1], ["none", "lr", "ud"], "cost as much as 8.01 plain ones, and may cost 8"),
        ([1.0, 0.5, 0.5], ["lr", "ud", "ud"], "the pass `0.5 ud` is there twice"),
    ],
)
def test_passes_that_make_no_sense_are_refused(scales: list[float], flips: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        passes_of(scales, flips)


def test_two_passes_of_twice_the_size_cost_no_more_than_passes_may() -> None:
    assert len(passes_of([2.0, 2.0], ["none", "lr"])) == 2


def test_passes_are_described_in_logs_and_answers() -> None:
    assert describe_passes(DEFAULT_PASSES) == "test-time augmentation: 3 passes: 1, 0.83 lr, 0.67"
    assert passes_as_json(DEFAULT_PASSES)[1] == {"scale": 0.83, "flip": "lr"}


def test_without_a_pass_nobody_would_look() -> None:
    with pytest.raises(ValueError, match="a plain look is one"):
        DetectOptions(passes=())


def test_a_graph_says_which_size_it_takes() -> None:
    backend = OnnxRuntimeBackend(tiny_graph())
    assert len(backend.run(torch.zeros(2, 3, 64, 96))[0]) == 2
    with pytest.raises(ValueError, match=r"takes images of \[64, 96\] pixels, not of \[64, 64\]; the eager"):
        backend.run(torch.zeros(1, 3, 64, 64))
