"""Work in threads whose results come in order, and which never runs away from who takes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from detection.inference.in_order import batches_of, map_in_order


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_results_come_in_the_order_of_the_items(pool: ThreadPoolExecutor) -> None:
    first_may_end = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            first_may_end.wait(10)
        elif item == 1:
            first_may_end.set()
        return item * item

    assert list(map_in_order(pool, work, range(6), ahead=2)) == [0, 1, 4, 9, 16, 25]


def test_no_more_items_are_taken_than_are_begun(pool: ThreadPoolExecutor) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    results = map_in_order(pool, str, items(), ahead=3)
    assert next(results) == "0"
    assert len(taken) == 3
    assert next(results) == "1"
    assert len(taken) == 4
    results.close()


def test_the_first_error_ends_it(pool: ThreadPoolExecutor) -> None:
    results = map_in_order(pool, lambda item: 1 // item, [1, 0, 1], ahead=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_batches_are_full_but_for_the_last() -> None:
    assert list(batches_of(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches_of([], 2)) == []
