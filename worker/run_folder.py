"""The folder of a training's checkpoints, handed from attempt to attempt: only the newest can write."""

from __future__ import annotations

import shutil
from pathlib import Path

from detection.durable import sync_folder


def take_over(folder: Path, fence: int) -> Path:
    """Return the folder of attempt `fence`, with all that earlier attempts have left.

    It is renamed, not copied: an older attempt that wakes up finds its folder gone, so that its next write
    fails instead of mixing with those of the attempt that took its place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / str(fence)
    earlier = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    if earlier:
        (folder / str(earlier.pop())).rename(own)
    else:
        own.mkdir()
    for stale in earlier:
        shutil.rmtree(folder / str(stale), ignore_errors=True)
    sync_folder(folder)
    return own
