"""The engine's socket file: only its owner may connect, and one that a dead engine left is replaced."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BACKLOG = 128
OWNER_ONLY = 0o177


class EngineRunningError(Exception):
    """Another engine answers on this socket."""


@contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """Listen on a unix socket at `path`; the file goes when the block ends.

    Raises:
        EngineRunningError: somebody listens there already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        umask = os.umask(OWNER_ONLY)
        try:
            listener.bind(str(path))
        finally:
            os.umask(umask)
        listener.listen(BACKLOG)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise EngineRunningError(f"another engine listens on {path}")
