"""The memory that there is here: the host's, or less where a control group bounds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

OWN_GROUPS = Path("/proc/self/cgroup")
MOUNTED = Path("/sys/fs/cgroup")


def memory_limit_bytes(own_groups: Path = OWN_GROUPS, mounted: Path = MOUNTED) -> int:
    """Return the smallest of the host's memory and the limits of this process's control groups."""
    return min([int(psutil.virtual_memory().total), *_limits(own_groups, mounted)])


def _limits(own_groups: Path, mounted: Path) -> Iterator[int]:
    """Yield the limits of the groups of version 2 and 1 that this process is in, and of those around them.

    In a container the path is often that of the host, and only the mount's root is ours to read.
    """
    for line in _read(own_groups).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            limit = _read(folder / name).strip()
            if limit.isdecimal():  # without a limit version 2 says `max`, and 1 a number beyond any host
                yield int(limit)
            if folder == top:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
