"""Tells an accelerator that has no memory left from anything else that goes wrong, and goes on with less."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

ALLOCATION_ERRORS: tuple[type[Exception], ...] = (
    torch.OutOfMemoryError,
    MemoryError,
    EPFail,
    Fail,
    RuntimeException,
)
"""What can mean it. ONNX Runtime has no error of its own for it: there the message decides."""
_ALLOCATION_FAILURES = ("failed to allocate memory", "out of memory", "bad allocation")

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether less at a time might still fit."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, ALLOCATION_ERRORS) and any(each in message for each in _ALLOCATION_FAILURES)


@dataclass(slots=True)
class MemoryLimit:
    """How many items are computed at a time: half as many from when the memory does not suffice on."""

    most: int

    def halve(self, count: int, error: BaseException) -> int:
        """Note that so many did not fit, and return how many to try at a time instead.

        Args:
            error: what said so. It lets go of all that was computed until then, which would fill the memory
                while less is tried.
        """
        traceback.clear_frames(error.__traceback__)
        self.most = min(self.most, max(count // 2, 1))
        return self.most

    def in_parts(self, work: Callable[[Sequence[Item]], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield what `work` returns for each part of the items, in order; a part that does not fit is halved.

        Raises:
            Exception: whatever `work` raises, also that not even one item fits.
        """
        done = 0
        while done < len(items):
            part = items[done : done + self.most]
            try:
                result = work(part)
            except ALLOCATION_ERRORS as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
                self.halve(len(part), error)
                continue
            done += len(part)
            yield result
