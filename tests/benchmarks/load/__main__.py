"""A load generator that leaves the cores to the server: one thread, bare sockets, requests made beforehand.

It runs in a process of its own: `python -m tests.benchmarks.load`, with a plan as JSON on its input and the
counts on its output. Standard library only, so that it starts at once and is the same before every server.

Closed loop: so many clients, each sends when it has its answer. Open loop: so many requests a second,
whatever becomes of them; a time then begins when the request was due, so that a server that holds the sender
up gains nothing. Beside them some clients may misbehave: damaged pictures, connections that are reset.
"""

from __future__ import annotations

import json
import os
import resource
import sys

from tests.benchmarks.load.generator import Load
from tests.benchmarks.load.plan import Plan

PRIORITY = -10
"""So that the sender's own turn is not counted as the server's time; only root may ask for it."""


def main() -> None:
    """Do what the plan on the input says, with as many connections as it needs."""
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        first = True
    except PermissionError:
        first = False
    plan = Plan(**json.load(sys.stdin))
    json.dump({**Load(plan).run(), "goes_first": first}, sys.stdout)


if __name__ == "__main__":
    main()
