"""Captions are at their boxes, in the picture, and where room is not upon each other."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from detection.inference.captions import Rectangle, place_captions

PICTURE = 320, 240
SIZE = 60, 12


def place(*boxes: Rectangle, size_wh: tuple[int, int] = SIZE) -> tuple[list[Rectangle], bool]:
    return place_captions(boxes, [size_wh] * len(boxes), picture_wh=PICTURE)


def overlap(first: Rectangle, second: Rectangle) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def test_a_caption_lies_on_the_upper_edge_of_its_box() -> None:
    assert place((100, 100, 200, 200)) == ([(100, 88, 160, 100)], True)


def test_at_the_upper_border_it_lies_inside_or_below_a_box_that_it_would_hide() -> None:
    assert place((100, 5, 200, 200))[0] == [(100, 5, 160, 17)]
    assert place((100, 5, 130, 20))[0] == [(100, 20, 160, 32)]


def test_captions_of_the_same_box_find_different_places_at_it() -> None:
    plates, all_free = place(*[(100, 100, 200, 200)] * 6)
    assert all_free
    assert plates[:3] == [(100, 88, 160, 100), (100, 100, 160, 112), (100, 188, 160, 200)]
    assert not any(overlap(*pair) for pair in combinations(plates, 2))


def test_where_no_room_is_the_first_keeps_its_place_and_the_others_cover_least() -> None:
    plates, all_free = place_captions([(0, 0, 20, 20)] * 3, [(20, 12)] * 3, picture_wh=(20, 20))
    assert not all_free
    assert plates == [(0, 0, 20, 12), (0, 8, 20, 20), (0, 0, 20, 12)]


@pytest.mark.parametrize("size_wh", [(60, 12), (319, 12), (20, 239), (2000, 900)])
def test_nothing_leaves_the_picture_unless_it_is_larger(size_wh: tuple[int, int]) -> None:
    random = Random(0)
    boxes = []
    for _ in range(40):
        x1, y1 = random.randrange(PICTURE[0]), random.randrange(PICTURE[1])
        boxes.append((x1, y1, random.randrange(x1, PICTURE[0]), random.randrange(y1, PICTURE[1])))
    for x1, y1, x2, y2 in place(*boxes, size_wh=size_wh)[0]:
        assert x1 >= 0
        assert y1 >= 0
        assert x2 <= max(PICTURE[0], size_wh[0])
        assert y2 <= max(PICTURE[1], size_wh[1])
        assert (x2 - x1, y2 - y1) == size_wh


def test_no_boxes_need_no_places() -> None:
    assert place() == ([], True)
