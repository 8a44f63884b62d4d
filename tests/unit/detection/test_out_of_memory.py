"""What counts as too little memory, and what does not."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

from detection.inference.out_of_memory import MemoryLimit, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeException("BFCArena::AllocateRawInternal Failed to allocate memory for buffer"), True),
        (Fail("CUDA failure 2: out of memory"), True),
        (EPFail("CUDA failure 2: out of memory"), True),
        (Fail("Node () Op (Conv) invalid shape"), False),
        (RuntimeError("out of memory, says somebody else"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_a_failed_allocation_counts(error: Exception, answer: bool) -> None:
    assert is_out_of_memory(error) is answer


class Memory:
    """What a pass computes on its way."""


def test_what_did_not_fit_is_gone_before_less_is_tried() -> None:
    """An error holds the frames that it went through, and these hold what was computed."""
    held: list[weakref.ref[Memory]] = []

    def work(items: Sequence[int]) -> int:
        assert all(each() is None for each in held)
        own = Memory()
        held.append(weakref.ref(own))
        if len(items) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sum(items)

    assert list(MemoryLimit(4).in_parts(work, [1, 2, 3, 4, 5])) == [1, 2, 3, 4, 5]
    assert len(held) == 2 + 5


def test_what_is_no_lack_of_memory_is_raised_as_it_is() -> None:
    def work(items: Sequence[int]) -> int:
        raise Fail("Node () Op (Conv) invalid shape")

    limit = MemoryLimit(4)
    with pytest.raises(Fail):
        next(limit.in_parts(work, [1, 2, 3]))
    assert limit.most == 4
