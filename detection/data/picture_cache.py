"""Decoded pictures in memory, up to a number of bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from detection.data.records import ImageRecord
from detection.images import DecodedImage, decode_image

ReadPicture = Callable[[ImageRecord], bytes]


class PictureCache:
    """Decodes pictures, for a network input or whole, and keeps them while there is room; safe for threads.

    Pictures come in random order and each comes again: the first that fit stay, for replacing one by another
    would gain nothing.
    """

    def __init__(self, read: ReadPicture, *, input_size_hw: tuple[int, int] | None, max_bytes: int) -> None:
        self._read = read
        self._input_size_hw = input_size_hw
        self._free_bytes = max_bytes
        self._lock = threading.Lock()
        self._pictures: dict[str, DecodedImage] = {}

    def picture(self, image: ImageRecord) -> DecodedImage:
        """Return the decoded picture; its pixels must not be changed.

        Raises:
            ImageError: it cannot be decoded.
        """
        kept = self._pictures.get(image.id)
        if kept is not None:
            return kept
        decoded = decode_image(self._read(image), input_size_hw=self._input_size_hw)
        decoded.pixels.setflags(write=False)
        with self._lock:
            if image.id not in self._pictures and decoded.pixels.nbytes <= self._free_bytes:
                self._free_bytes -= decoded.pixels.nbytes
                self._pictures[image.id] = decoded
        return decoded
