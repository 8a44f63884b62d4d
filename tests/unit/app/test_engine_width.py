"""A lone picture gets all threads while that is quicker, and one while something else has the cores."""

from __future__ import annotations

from app.engine.width import RETRY_NARROW_AFTER, RETRY_WIDE_AFTER, Width

WIDE_S, NARROW_S, SLOW_S = 0.010, 0.015, 0.040


def looked(width: Width, *, wide_s: float, narrow_s: float = NARROW_S, times: int = 1) -> list[bool]:
    """Compute lone pictures that take so long in either way, and return which ways were taken."""
    taken = []
    for _ in range(times):
        wide = width.is_wide()
        width.note(wide_s if wide else narrow_s, wide=wide)
        taken.append(wide)
    return taken


def test_on_an_idle_machine_all_threads_are_always_used() -> None:
    assert all(looked(Width(), wide_s=WIDE_S, times=200))


def test_beside_something_busy_one_thread_is_used_and_the_other_way_tried_now_and_then() -> None:
    width = Width()
    looked(width, wide_s=WIDE_S, times=5)
    looked(width, wide_s=SLOW_S, times=10)
    taken = looked(width, wide_s=SLOW_S, times=4 * RETRY_WIDE_AFTER)
    assert taken.count(True) == 4


def test_when_the_cores_are_free_again_all_threads_are() -> None:
    width = Width()
    looked(width, wide_s=WIDE_S, times=5)
    looked(width, wide_s=SLOW_S, times=50)
    looked(width, wide_s=WIDE_S, times=RETRY_WIDE_AFTER)  # the first try is believed
    assert all(looked(width, wide_s=WIDE_S, times=2 * RETRY_NARROW_AFTER))


def test_slow_together_but_slower_alone_stays_together() -> None:
    width = Width()
    looked(width, wide_s=WIDE_S, times=5)
    taken = looked(width, wide_s=SLOW_S, narrow_s=2 * SLOW_S, times=100)
    assert taken.count(True) > 80


def test_where_all_threads_got_slower_but_are_still_quicker_one_thread_is_seldom_tried() -> None:
    width = Width()
    looked(width, wide_s=WIDE_S / 2)
    looked(width, wide_s=WIDE_S, times=50)
    taken = looked(width, wide_s=WIDE_S, times=4 * RETRY_NARROW_AFTER)
    assert taken.count(False) == 4
