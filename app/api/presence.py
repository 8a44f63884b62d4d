"""Whether the client of a request is still there: its connection tells, so that nobody has to ask."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

KEY = "harrier.presence"


class Presence:
    """One client, for as long as it waits for one answer."""

    def __init__(self, listen: Callable[[], None]) -> None:
        """Begin with a client that is there.

        Args:
            listen: lets the connection read; one that does not read learns of no end.
        """
        self._listen = listen
        self._tell: Callable[[], object] | None = None
        self.has_left = False

    def watch(self, tell: Callable[[], object]) -> None:
        """Have a function called when the client leaves; it must not have left yet."""
        self._tell = tell
        self._listen()

    def end_watch(self) -> None:
        self._tell = None

    def leave(self) -> None:
        """Note that nobody waits for the answer any more."""
        self.has_left = True
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()


def presence_of(scope: Scope) -> Presence | None:
    """Return what the connection of a request says; None where another server has read the request."""
    presence: Presence | None = scope.get(KEY)
    return presence
