"""Where an attempt puts what need not outlive it: unpacked archives, exported models, fetched pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

from app.settings import Settings


def jobs_scratch(settings: Settings) -> Path:
    return settings.scratch / "jobs"


def scratch_name(job_id: str, fence: int) -> str:
    return f"{job_id}-{fence}"


def scratch_folder(settings: Settings, job_id: str, fence: int) -> Path:
    """Return the folder of one attempt; its process makes it, its keeper removes it."""
    return jobs_scratch(settings) / scratch_name(job_id, fence)


def remove_scratch(settings: Settings, job_id: str, fence: int) -> None:
    """Remove the folder of an attempt that has ended, and those of earlier ones whose keeper was killed."""
    for path in jobs_scratch(settings).glob(f"{job_id}-*"):
        if int(path.name.rpartition("-")[2]) <= fence:
            shutil.rmtree(path, ignore_errors=True)
