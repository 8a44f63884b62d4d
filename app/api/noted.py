"""Observations that are counted a moment later, together: alone, between two pictures, each takes several
times as long, for the caches are full of other things then."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

MOST = 32
"""That wait; to count them takes less than a millisecond."""

Observation = TypeVar("Observation")


class Noted(Collector, Generic[Observation]):
    """Keeps observations of one kind, and counts them when there are many or Prometheus asks."""

    def __init__(self, count: Callable[[Observation], None], registry: CollectorRegistry) -> None:
        """Begin with none.

        Args:
            count: puts one into series, which must join the registry after this: it is asked in that order.
        """
        self._count, self._waiting = count, deque[Observation]()
        self._counting = threading.Lock()
        registry.register(self)

    def note(self, observation: Observation) -> None:
        """Keep one; it must not change any more."""
        self._waiting.append(observation)
        if len(self._waiting) >= MOST:
            self.count_all()

    def count_all(self) -> None:
        """Count what waits; from whichever thread."""
        with self._counting:
            while self._waiting:
                self._count(self._waiting.popleft())

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Say nothing: what is counted here is told by the series that come after."""
        self.count_all()
        return iter(())
