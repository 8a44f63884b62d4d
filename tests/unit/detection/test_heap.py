"""Blocks of a picture are taken from the system once."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource, numpy as np
from detection.heap import keep_freed_memory

def faults(runs):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(runs):
        np.ones(2_000_000, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

import ctypes
ctypes.CDLL(None).mallopt(-3, 128 * 1024)  # no adapting by itself, as where OpenVINO is loaded
print(faults(20), keep_freed_memory(), faults(1) * 0 + faults(20))
"""


def test_a_freed_block_is_not_asked_for_again() -> None:
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, told, after = ran.stdout.split()
    assert told == "True"
    assert int(before) > 20 * 100
    assert int(after) < 20 * 10
