"""The bound on what the engine has accepted: so many pictures, so many bytes, and not one more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from app.detect.wire import Refusal
from app.engine.refusal import RefusedError


class Admission:
    """Counts pictures from their arrival to their answer."""

    def __init__(self, *, max_images: int, max_bytes: int) -> None:
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self.images = 0
        self.bytes = 0

    @contextmanager
    def admit(self, size_bytes: int) -> Iterator[None]:
        """Hold a place for one picture.

        Raises:
            RefusedError: the queue is full, or the engine is about to end.
        """
        if self._draining:
            raise RefusedError(Refusal.DRAINING, "the engine is stopping")
        if self.images >= self._max_images or self.bytes + size_bytes > self._max_bytes:
            raise RefusedError(Refusal.OVERLOADED, "too many pictures are waiting already")
        self.images += 1
        self.bytes += size_bytes
        self._empty.clear()
        try:
            yield
        finally:
            self.images -= 1
            self.bytes -= size_bytes
            if not self.images:
                self._empty.set()

    async def drain(self) -> None:
        """Accept nothing more and return when everything accepted has been answered."""
        self._draining = True
        await self._empty.wait()
