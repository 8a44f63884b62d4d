"""Who is sent away when it becomes too much: no more than there is no room for."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from app.engine.admission import Admission
from app.engine.refusal import RefusedError


@pytest.mark.parametrize(("most", "kept"), [(4, 4), (40, 40), (70, 64), (1000, 64)])
def test_when_it_becomes_too_much_as_many_stay_as_are_served_soon(
    monkeypatch: pytest.MonkeyPatch, most: int, kept: int
) -> None:
    admission = Admission(max_images=256, max_bytes=10**9, most_under_overload=most)
    overload = False
    monkeypatch.setattr(admission._pressure, "judge", lambda *_: overload)
    with ExitStack() as held:
        places = [held.enter_context(admission.admit(1)) for _ in range(64)]
        overload = True
        if most > len(places):
            held.enter_context(admission.admit(1))
        else:
            with pytest.raises(RefusedError):
                held.enter_context(admission.admit(1))
        assert [place.is_refused for place in places] == [True] * (64 - kept) + [False] * kept
