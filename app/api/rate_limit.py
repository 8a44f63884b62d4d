"""How often one caller may ask: a bucket of requests per key or address, filled again as time passes."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from app.errors import RateLimitedError

MOST_CALLERS = 10_000
"""Who asked longest ago is forgotten first, and begins with a full bucket when it comes back."""


class RateLimit:
    """Lets each caller send `per_minute` requests at once, and so many a minute in the long run.

    It counts in this process alone: with several API processes a caller may send to each of them.
    """

    def __init__(self, per_minute: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._now = per_minute, now
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When each caller's bucket will be full again: the only thing that has to be remembered."""

    def refusal(self, caller: str) -> RateLimitedError | None:
        """Count one request of a caller; return the answer to it when it is one too many."""
        refused = self.would_refuse(caller)
        if refused is None:
            self._full_at[caller] = self._full_after(caller)
            self._full_at.move_to_end(caller)
            while len(self._full_at) > MOST_CALLERS:
                self._full_at.popitem(last=False)
        return refused

    def would_refuse(self, caller: str) -> RateLimitedError | None:
        """Return the answer to one more request of a caller if it were one too many; count nothing."""
        wait = self._full_after(caller) - self._now() - 60
        if wait <= 1e-9:
            return None
        retry_after_s = math.ceil(wait)
        return RateLimitedError(
            f"more than {self._per_minute} requests a minute; try again in {retry_after_s} s",
            retry_after_s=retry_after_s,
        )

    def _full_after(self, caller: str) -> float:
        """Return when the bucket would be full again after one more request."""
        now = self._now()
        return max(self._full_at.get(caller, now), now) + 60 / self._per_minute
