"""How much memory a computation takes at most, asked of the allocator that gives it out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record

from detection.devices import wait_for

OF_ACCELERATOR = "the most that was allocated on the accelerator, the weights included"
OF_CPU = (
    "the most that torch's CPU allocator held above what it held before, so without the weights; memory that "
    "kernels take for themselves is not seen"
)
MEMORY_EVENT = "[memory]"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """The most memory that was in use at a time."""

    peak_bytes: int | None
    """None when the allocator said nothing."""
    measured: str
    """What the number counts, in words."""


def peak_memory(run: Callable[[], object], device: torch.device) -> PeakMemory:
    """Run something once and return the most memory that it needed at a time."""
    if device.type == "cuda":
        return _on_accelerator(run, device)
    with record(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_bytes())["traceEvents"]
    changes = [event for event in events if event.get("name") == MEMORY_EVENT]
    held = accumulate(int(event["args"]["Bytes"]) for event in sorted(changes, key=lambda each: each["ts"]))
    return PeakMemory(peak_bytes=max(held, default=None), measured=OF_CPU)


def _on_accelerator(run: Callable[[], object], device: torch.device) -> PeakMemory:
    torch.cuda.reset_peak_memory_stats(device)
    run()
    wait_for(device)
    return PeakMemory(peak_bytes=torch.cuda.max_memory_allocated(device), measured=OF_ACCELERATOR)
