"""The bounds on what the engine accepts, and that places are given back."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from app.detect.wire import Refusal
from app.engine.admission import Admission
from app.engine.refusal import RefusedError


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [((1, 1, 1), Refusal.FULL), ((60, 41), Refusal.OVERLOADED)],  # smaller ones may still fit
)
def test_too_many_pictures_or_too_many_bytes_are_refused(sizes: tuple[int, ...], reason: Refusal) -> None:
    *fitting, one_more = sizes
    admission = Admission(max_images=2, max_bytes=100)
    with ExitStack() as held:
        for size in fitting:
            held.enter_context(admission.admit(size))
        with pytest.raises(RefusedError) as refused, admission.admit(one_more):
            pass
        assert refused.value.reason is reason
    assert (admission.images, admission.bytes) == (0, 0)


def test_the_place_of_a_picture_that_failed_is_free_again() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    with pytest.raises(KeyError), admission.admit(10):
        raise KeyError
    with admission.admit(100):
        assert admission.images == 1


def test_draining_refuses_the_new_and_waits_for_the_old() -> None:
    async def story() -> None:
        admission = Admission(max_images=5, max_bytes=100)
        with admission.admit(1):
            draining = asyncio.create_task(admission.drain())
            await asyncio.sleep(0)
            with pytest.raises(RefusedError) as refused, admission.admit(1):
                pass
            assert refused.value.reason is Refusal.DRAINING
            assert not draining.done()
        await draining

    asyncio.run(story())
