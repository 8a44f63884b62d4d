"""Which lane a picture takes: most are ordinary, those that take long and much memory are large."""

from __future__ import annotations

from app.engine.device import num_callers, num_cores
from app.engine.lanes import COMPUTING_NICENESS, Lane
from app.settings import MIB
from detection.images import ImageHeader

ORDINARY_BYTES = 96 * MIB
ORDINARY_PIXELS = 32_000_000
"""Beyond one of these a picture is large. Decoding an ordinary one takes at most a few tenths of a second."""
LARGE_NICENESS = 2 * COMPUTING_NICENESS
"""A core goes to an ordinary picture first."""


class TwoLanes:
    """The threads of the engine: enough for all cores for ordinary pictures, fewer beside for large ones."""

    def __init__(self, *, slots: int, large_bytes: int) -> None:
        """Make the lanes.

        Args:
            slots: ordinary pictures that may be on their way at a time.
            large_bytes: memory that the large ones may take together.
        """
        cores = num_cores()
        self.ordinary = Lane(
            "pictures",
            threads=num_callers(),
            max_pictures=slots,
            max_bytes=slots * ORDINARY_BYTES,
            niceness=COMPUTING_NICENESS,
        )
        large_threads = max(cores - 1, 1)
        self.large = Lane(
            "large",
            threads=large_threads,
            max_pictures=large_threads,
            max_bytes=large_bytes,
            niceness=LARGE_NICENESS,
        )

    def of(self, header: ImageHeader, size_bytes: int) -> Lane:
        """Return the lane of a picture that takes so much memory on its way."""
        return self.large if is_large(header, size_bytes) else self.ordinary


def is_large(header: ImageHeader, size_bytes: int) -> bool:
    return header.width * header.height > ORDINARY_PIXELS or size_bytes > ORDINARY_BYTES
