"""What a job process may take from its host: a hostile file costs one process, not the machine."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import psutil

from app.jobs.states import JobKind
from app.settings import Settings
from worker.memory import memory_limit_bytes

OOM_SCORE = Path("/proc/self/oom_score_adj")
KILLED_FIRST = "500"
"""When the host runs out of memory, a job dies before the API, the engine or the database."""
NICENESS = 8
"""A training leaves the cores to whoever waits for an answer, which the engine computes at 3."""
READS_UNTRUSTED_FILES = (JobKind.DATASET_IMPORT, JobKind.MODEL_IMPORT, JobKind.DETECT_VIDEO)
UNTRUSTED_SHARE = 0.75
"""Of the memory, for what untrusted files make their readers hold: few bytes can ask for all of it."""
UNTRUSTED_LEAST = 2 * 1024**3
"""One reader has this much even where memory is scarce: loading torch alone takes half of it."""
LIBRARY_BYTES = 4 * 1024**3
"""Address space that libraries take without using it."""


def limit_resources(kind: JobKind, settings: Settings, *, device: str = "cpu") -> None:
    """Lower this process's limits to what a job of this kind needs.

    Args:
        device: what it computes on. The driver of an accelerator maps more than a limit on data allows.
    """
    _limit(resource.RLIMIT_CORE, 0)
    if kind in READS_UNTRUSTED_FILES:
        _limit(resource.RLIMIT_FSIZE, settings.max_archive_bytes)
    if kind in READS_UNTRUSTED_FILES and (kind is not JobKind.DETECT_VIDEO or device == "cpu"):
        _limit(resource.RLIMIT_DATA, _untrusted_bytes(settings.cpu_jobs))
    if kind is JobKind.DATASET_IMPORT:  # torch maps more than small hosts have; every other kind loads it
        _limit(resource.RLIMIT_AS, memory_limit_bytes() + LIBRARY_BYTES)
    psutil.Process().nice(NICENESS)
    with suppress(OSError):  # a sandbox may forbid it, and it is only a preference
        OOM_SCORE.write_text(KILLED_FIRST)


def _untrusted_bytes(num_jobs: int) -> int:
    """Return what one of several readers side by side may hold."""
    return max(int(memory_limit_bytes() * UNTRUSTED_SHARE) // num_jobs, UNTRUSTED_LEAST)


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (bounded, bounded))
