"""Memory that a picture has given back stays with the process, for the next one."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of glibc's `mallopt`."""
KEPT_BYTES = 256 * 1024 * 1024
"""At the end of a heap; what is free beyond it goes back to the system."""
LARGEST_KEPT_BYTES = 32 * 1024 * 1024
"""Larger blocks, which only large pictures need, go back at once; glibc takes no higher number."""


def keep_freed_memory() -> bool:
    """Let freed blocks stay with this process; return whether its C library can be told so.

    A picture's pixels, input and outputs are blocks of a megabyte each. The default is to take such blocks
    from the system and to give them back, page by page: with OpenVINO in the process some 1,100 page faults
    and an eighth of the processor time of a small network.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT_BYTES)) and bool(mallopt(TRIM_THRESHOLD, KEPT_BYTES))
