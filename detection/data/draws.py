"""Random draws of the data pipeline: each depends on the seed and its purpose, never on what was before.

So a sample is the same in every process, thread and attempt, and nothing of a loader needs to be saved.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence


class Purpose(IntEnum):
    """Keeps streams of one seed apart; the numbers are part of what a seed means."""

    ORDER = 1
    SAMPLE = 2
    INPUT_SIZE = 3
    SYNTHETIC = 4


def draws(seed: int, purpose: Purpose, *key: int) -> Generator:
    """Return a generator of its own for one purpose and key, such as epoch and position."""
    return np.random.Generator(PCG64(SeedSequence((seed, purpose, *key))))
