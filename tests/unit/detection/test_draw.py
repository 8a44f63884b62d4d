"""Drawing boxes: readable anywhere, and nothing a label may hold ends the process."""

from __future__ import annotations

import sys
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch

from detection.detections import Detections
from detection.images import Pixels, decode_image, encode_jpeg
from detection.inference.draw import (
    BLACK,
    WHITE,
    LabelledBox,
    class_colour,
    draw_boxes,
    draw_detections,
    text_colour,
)


def ground(width: int = 320, height: int = 240, grey: int = 128) -> Pixels:
    return np.full((height, width, 3), grey, np.uint8)


def labelled(
    x1: float, y1: float, x2: float, y2: float, class_id: int = 0, caption: str = "cat"
) -> LabelledBox:
    return LabelledBox(xyxy=(x1, y1, x2, y2), class_id=class_id, caption=caption)


def test_a_box_is_drawn_on_a_copy_in_the_colour_of_its_class() -> None:
    picture = ground()
    drawn = draw_boxes(picture, [labelled(50, 80, 200, 180, class_id=3)])
    assert (picture == 128).all()
    assert drawn.shape == picture.shape
    for y, x in ((80, 120), (180, 120), (130, 50), (130, 200)):
        assert tuple(drawn[y, x]) == class_colour(3)
    assert (drawn[130, 100] == 128).all()


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_line_can_be_seen_on_any_ground(grey: int) -> None:
    drawn = draw_boxes(ground(grey=grey), [labelled(50, 80, 200, 180)])
    column = drawn[130, 44:56].astype(int)
    contrast = np.abs(column - grey).max()
    assert contrast > 100


def test_detections_are_captioned_with_label_and_score() -> None:
    found = Detections(torch.tensor([[40.0, 90, 90, 150]]), torch.tensor([0.876]), torch.tensor([1]))
    drawn = draw_detections(ground(), found, ["cat", "dog"])
    expected = draw_boxes(ground(), [labelled(40, 90, 90, 150, class_id=1, caption="dog 0.88")])
    assert (drawn == expected).all()
    assert (drawn != draw_detections(ground(), found, ["cat", "owl"])).any()


def test_no_detection_leaves_the_picture_as_it_is() -> None:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert (draw_detections(ground(), nothing, ["cat"]) == ground()).all()


def test_lines_grow_with_the_picture() -> None:
    def width_of_line(side: int) -> int:
        drawn = draw_boxes(ground(side, side), [labelled(side / 4, side / 2, side / 2, side * 0.9)])
        return int((drawn[int(side * 0.7)] != 128).any(axis=1).sum())

    assert width_of_line(200) < width_of_line(1600) < width_of_line(4000)


@pytest.mark.parametrize(
    "xyxy",
    [(-50, -50, 900, 900), (0, 0, 0, 0), (319, 239, 320, 240), (300, 2, 310, 8), (1e6, 1e6, 2e6, 2e6)],
)
@pytest.mark.parametrize("size", [(320, 240), (1, 1), (1, 300), (300, 1)])
def test_boxes_at_and_beyond_the_border_are_drawn(
    xyxy: tuple[float, float, float, float], size: tuple[int, int]
) -> None:
    drawn = draw_boxes(ground(*size), [labelled(*xyxy, caption="a long caption 0.99")])
    assert drawn.shape == (size[1], size[0], 3)
    assert decode_image(encode_jpeg(drawn)).size_wh == size


def test_captions_of_boxes_at_one_place_can_both_be_read() -> None:
    both = [labelled(50, 80, 200, 180, class_id=index, caption="a cat 0.99") for index in (0, 1)]
    drawn = draw_boxes(ground(), both)

    def plate(class_id: int) -> int:
        return int((drawn[60:180] == class_colour(class_id)).all(axis=-1).sum())

    alone = draw_boxes(ground(), both[:1])
    hidden_outline = int((alone[60:180, 198:203] == class_colour(0)).all(axis=-1).sum())
    assert plate(0) > 2 * hidden_outline
    assert plate(1) > 2 * hidden_outline


def test_text_is_smaller_where_many_captions_have_to_share_the_room() -> None:
    size = 1000
    crowd = [labelled(300, 400 + 20 * row, 700, 410 + 20 * row, caption="a cat 0.99") for row in range(20)]

    def height_of_plate(boxes: list[LabelledBox]) -> int:
        drawn = draw_boxes(ground(size, size), boxes)
        return int((drawn[:395, 310] == class_colour(0)).all(axis=-1).sum())

    assert 0 < height_of_plate(crowd) < height_of_plate(crowd[:1])


def test_colours_are_stable_bright_and_differ_between_neighbours() -> None:
    colours = [class_colour(index) for index in range(80)]
    assert colours == [class_colour(index) for index in range(80)]
    assert len(set(colours)) == 80
    assert all(max(colour) == 255 for colour in colours)
    for first, second in pairwise(colours):
        assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 150


def test_text_is_black_on_bright_and_white_on_dark() -> None:
    assert text_colour((255, 255, 255)) == BLACK
    assert text_colour((0, 255, 255)) == BLACK
    assert text_colour((255, 0, 0)) == WHITE
    assert text_colour((0, 0, 0)) == WHITE


CAPTIONS = ["", "кошка", "猫", "قط", "😀", "a\nb\tc\0d", "\ud800", "\udfff\ud800x", "\u202eabc", "x" * 10_000]


@pytest.mark.parametrize("caption", CAPTIONS, ids=range(len(CAPTIONS)))
def test_any_label_can_be_drawn(caption: str) -> None:
    drawn = draw_boxes(ground(), [labelled(50, 80, 200, 180, caption=caption)])
    assert (drawn != 128).any()


def test_random_labels_can_be_drawn() -> None:
    random = Random(0)
    for _ in range(300):
        caption = "".join(chr(random.randrange(sys.maxunicode + 1)) for _ in range(random.randrange(12)))
        draw_boxes(
            ground(64, 64), [labelled(random.randrange(64), random.randrange(64), 60, 60, caption=caption)]
        )
