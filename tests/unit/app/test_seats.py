"""Seats for watchers: so many for each caller, so many in all, given back when a stream ends."""

from __future__ import annotations

import pytest

from app.api.seats import Seats
from app.errors import OverloadedError, TooManyStreamsError


def test_a_caller_has_a_share_and_gets_it_back() -> None:
    seats = Seats(in_all=3, per_caller=2)
    leave, _ = seats.take("a"), seats.take("a")
    with pytest.raises(TooManyStreamsError) as refused:
        seats.take("a")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "5")
    seats.take("b")
    with pytest.raises(OverloadedError):
        seats.take("c")
    leave()
    seats.take("a")
