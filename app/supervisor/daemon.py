"""`python -m app.supervisor.daemon`: supervisord, which leaves out what it cannot write to a log.

As it is, it prints a traceback for every line when the disk is full, and when that cannot be printed either,
it never reads again what the program writes.
"""

from __future__ import annotations

from supervisor import supervisord
from supervisor.loggers import Handler


def _leave_out(handler: Handler) -> None:
    """Go on without the line; the next one is tried as if nothing had been."""


def main() -> None:
    Handler.handleError = _leave_out
    supervisord.main()


if __name__ == "__main__":
    main()
