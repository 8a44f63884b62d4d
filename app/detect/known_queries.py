"""What the queries of `/detect` mean that were read before: clients say the same thing again and again."""

from __future__ import annotations

from collections import OrderedDict

from app.detect.schemas import DetectParameters

MOST_QUERIES = 256
LONGEST_QUERY = 1024
"""Of one that is remembered, in bytes."""


class KnownQueries:
    """Queries that FastAPI has read, and what it read: the same words mean the same again."""

    def __init__(self) -> None:
        self._nothing_asked = DetectParameters()
        self._parameters: OrderedDict[bytes, DetectParameters] = OrderedDict()

    def find(self, query: bytes) -> DetectParameters | None:
        return self._parameters.get(query) if query else self._nothing_asked

    def remember(self, query: bytes, parameters: DetectParameters) -> None:
        if not query or len(query) > LONGEST_QUERY:
            return
        self._parameters[query] = parameters
        while len(self._parameters) > MOST_QUERIES:
            self._parameters.popitem(last=False)
