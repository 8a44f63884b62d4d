"""`python -m app.supervisor.leash COMMAND…` becomes COMMAND, and dies the moment its parent does.

The parent-death signal survives the exec, so programs that are not ours are held as well. A parent that died
before the signal was set is noticed by its process id, which every leash hands to the next one.
"""

from __future__ import annotations

import os
import signal
import sys

from app.parent_death import die_with_parent

PARENT = "HARRIER_LEASH"
"""Names the process that the next leash must find as its parent."""


def main() -> None:
    parent = os.environ.get(PARENT)
    die_with_parent(signal.SIGKILL, parent_pid=int(parent) if parent else None)
    os.environ[PARENT] = str(os.getpid())
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
