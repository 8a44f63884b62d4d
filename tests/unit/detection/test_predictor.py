"""From picture bytes to boxes in the picture's pixels, with a backend whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.errors import DamagedImageError, ImageError, ImageTooLargeError, UnsupportedImageError
from detection.images import DecodedImage
from detection.inference.predictor import DetectOptions, Prediction, Predictor
from detection.input_convention import InputConvention, Resize
from detection.model_record import ModelRecord
from tests.pictures import jpeg, noise, png, quadrants

SIDE = 64
SURE = DetectOptions(score_threshold=0.5)


class FixedBackend:
    """Answers the same boxes for every picture, and remembers what it was given."""

    def __init__(self, boxes: list[list[float]], scores: list[list[float]]) -> None:
        self._boxes, self._scores = torch.tensor(boxes), torch.tensor(scores)
        self.given: list[Tensor] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        self.given.append(images_BCHW)
        size = len(images_BCHW)
        return self._boxes.expand(size, -1, -1), self._scores.expand(size, -1, -1)


def record(**changes: object) -> ModelRecord:
    fields: dict[str, object] = {
        "architecture": "yolox-nano",
        "classes": ("cat", "dog"),
        "input_size_hw": (SIDE, SIDE),
        **changes,
    }
    return ModelRecord(**fields)  # type: ignore[arg-type]


def predictor(
    boxes: list[list[float]] | None = None, scores: list[list[float]] | None = None, **changes: object
) -> Predictor:
    backend = FixedBackend(boxes or [[8, 8, 24, 24]], scores or [[0.9, 0.1]])
    return Predictor(backend, record(**changes), max_pixels=10_000_000)


def one(answers: list[Prediction | ImageError]) -> Prediction:
    (answer,) = answers
    assert isinstance(answer, Prediction)
    return answer


def test_boxes_come_back_in_the_pixels_of_the_picture() -> None:
    answer = one(predictor().predict([jpeg(quadrants(256, 128))], SURE))
    assert (answer.width, answer.height) == (256, 128)
    assert answer.detections.boxes_N4.tolist() == [[32, 32, 96, 96]]
    assert answer.detections.scores_N.tolist() == [pytest.approx(0.9)]
    assert answer.detections.labels_N.tolist() == [0]


def test_a_picture_that_is_much_larger_is_decoded_smaller_and_still_mapped_back() -> None:
    answer = one(predictor().predict([jpeg(noise(640, 640))], SURE))
    assert answer.detections.boxes_N4.tolist() == [[80, 80, 240, 240]]


def test_a_turned_picture_is_answered_as_a_person_sees_it() -> None:
    turned, upright = (
        one(predictor().predict([jpeg(quadrants(64, 128), orientation=each)], SURE)) for each in (6, 1)
    )
    assert (turned.width, turned.height) == (128, 64)
    assert (upright.width, upright.height) == (64, 128)


def test_boxes_are_clipped_and_those_outside_dropped() -> None:
    boxes = [[-8.0, -8, 16, 16], [40, 4, 80, 30], [4, 40, 30, 60], [2, 30, 20, 70]]
    wide = png(quadrants(128, 64))  # fills the upper half of the input
    answer = one(predictor(boxes, [[0.9, 0]] * 4).predict([wide], SURE))
    assert answer.detections.boxes_N4.tolist() == [[0, 0, 32, 32], [80, 8, 128, 60], [4, 60, 40, 64]]
    unclipped = DetectOptions(score_threshold=0.5, clip=False)
    answer = one(predictor(boxes, [[0.9, 0]] * 4).predict([wide], unclipped))
    assert answer.detections.boxes_N4.tolist()[0] == [-16, -16, 32, 32]
    assert len(answer.detections) == 4


def test_options_choose_what_becomes_a_detection() -> None:
    boxes = [[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40]]
    scores = [[0.9, 0.2], [0.8, 0.1], [0.1, 0.4]]

    def found(**options: object) -> list[tuple[int, float]]:
        chosen = DetectOptions(**{"score_threshold": 0.3, **options})  # type: ignore[arg-type]
        answer = one(predictor(boxes, scores).predict([png(quadrants(64, 64))], chosen)).detections
        return [
            (label, round(score, 2))
            for label, score in zip(answer.labels_N.tolist(), answer.scores_N.tolist(), strict=True)
        ]

    assert found() == [(0, 0.9), (1, 0.4)]
    assert found(nms_iou=0.95) == [(0, 0.9), (0, 0.8), (1, 0.4)]
    assert found(score_threshold=0.5) == [(0, 0.9)]
    assert found(max_detections=1) == [(0, 0.9)]
    assert found(class_ids=(1,)) == [(1, 0.4)]


def test_the_overlap_of_the_model_is_the_default() -> None:
    boxes, scores = [[0.0, 0, 10, 10], [0, 0, 10, 9]], [[0.9, 0.0], [0.8, 0.0]]
    picture = png(quadrants(64, 64))
    assert len(one(predictor(boxes, scores, nms_iou=0.95).predict([picture], SURE)).detections) == 2
    assert len(one(predictor(boxes, scores, nms_iou=0.5).predict([picture], SURE)).detections) == 1


def test_a_bad_picture_costs_only_its_own_answer() -> None:
    good = jpeg(quadrants())
    pictures = [good, b"not a picture", good[:-40], png(noise(4000, 3000)), good]
    answers = predictor().predict(pictures, SURE)
    assert [type(each) for each in answers] == [
        *(Prediction, UnsupportedImageError, DamagedImageError, ImageTooLargeError),
        Prediction,
    ]
    kept = [each for each in answers if isinstance(each, Prediction)]
    assert [each.timing.batch_size for each in kept] == [2, 2]


def test_nothing_to_look_at_asks_nothing_of_the_backend() -> None:
    idle = predictor()
    assert idle.predict([]) == []
    assert [type(each) for each in idle.predict([b""])] == [UnsupportedImageError]
    assert isinstance(idle.backend, FixedBackend)
    assert idle.backend.given == []


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2000)])
def test_extreme_shapes_are_answered(size: tuple[int, int]) -> None:
    answer = one(predictor().predict([png(noise(*size))], SURE))
    assert (answer.width, answer.height) == size
    x1, y1, x2, y2 = answer.detections.boxes_N4.T
    assert ((x2 > x1) & (y2 > y1) & (x2 <= size[0]) & (y2 <= size[1])).all()


def test_a_picture_that_is_decoded_already_is_taken_as_it_is() -> None:
    decoded = DecodedImage(quadrants(256, 128), 256, 128)
    answer = one(predictor().predict([decoded], SURE))
    assert answer.detections.boxes_N4.tolist() == [[32, 32, 96, 96]]


def test_the_convention_of_the_model_prepares_the_picture() -> None:
    convention = InputConvention(resize=Resize.STRETCH, scale=1 / 255, mean=(0.5, 0.5, 0.5))
    stretching = predictor(input_convention=convention)
    answer = one(stretching.predict([png(quadrants(128, 64))], SURE))
    assert answer.detections.boxes_N4.tolist() == [[16, 8, 48, 24]]
    assert isinstance(stretching.backend, FixedBackend)
    (given,) = stretching.backend.given
    assert (float(given.min()), float(given.max())) == (-0.5, 0.5)


def test_a_batch_answers_like_its_pictures_one_by_one() -> None:
    pictures = [png(noise(40 + 20 * index, 70, seed=index)) for index in range(4)]
    together = predictor().predict(pictures, SURE)
    for picture, answer in zip(pictures, together, strict=True):
        alone = one(predictor().predict([picture], SURE))
        assert isinstance(answer, Prediction)
        assert torch.equal(answer.detections.boxes_N4, alone.detections.boxes_N4)


def test_time_is_told_by_stage() -> None:
    timing = one(predictor().predict([jpeg(noise(300, 200))], SURE)).timing
    times = (timing.decode_ms, timing.preprocess_ms, timing.inference_ms, timing.postprocess_ms)
    assert all(each > 0 for each in times)
    assert timing.batch_size == 1


def test_warming_up_runs_the_network_once() -> None:
    cold = predictor()
    cold.warm_up(batch_size=3)
    assert isinstance(cold.backend, FixedBackend)
    assert [list(each.shape) for each in cold.backend.given] == [[3, 3, SIDE, SIDE]]
    assert np.all(cold.backend.given[0].numpy() == 0)
