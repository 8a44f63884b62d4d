"""What the programs write to their logs: warnings for the terminal, and the end of a log when one dies."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

MOST_BYTES = 1024 * 1024
"""Read at once; what a burst leaves over comes with the next look."""
LAST_LINES = 12
"""How much of its log is shown of a program that died."""
TEXT_LEVEL = re.compile(r"\S+ \[(\w+) *\] ")
"""How a line of ours begins: time and level."""
WORTH_SAYING = frozenset({"warning", "error", "critical"})


class LogFollower:
    """Follows one growing log file, also over its rotation; begins at its present end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode, self._position = self._facts() or (0, 0)
        self._rest = b""

    def new_lines(self) -> Iterator[str]:
        """Yield the complete lines written since the last look."""
        facts = self._facts()
        if facts is None:
            return
        inode, size = facts
        if inode != self._inode or size < self._position:
            self._inode, self._position = inode, 0
        if size == self._position:
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            content = file.read(MOST_BYTES)
        self._position += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")

    def _facts(self) -> tuple[int, int] | None:
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return None
        return facts.st_ino, facts.st_size


class Selection:
    """Chooses the lines of one log that a person should see: warnings and errors with their tracebacks."""

    def __init__(self) -> None:
        self._inside = False

    def takes(self, line: str) -> bool:
        level = level_of(line)
        if level is not None:
            self._inside = level in WORTH_SAYING
        elif not line:
            self._inside = False
        return self._inside


def level_of(line: str) -> str | None:
    """Return the level of a line that our logging wrote; None for lines of others, and inside a traceback."""
    if line.startswith("{"):
        try:
            return str(json.loads(line)["level"])
        except (ValueError, KeyError):
            return None
    match = TEXT_LEVEL.match(line)
    return match[1] if match else None


class Console:
    """The logs of several programs, as far as the terminal should show them, each line with its program."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._logs = {name: (LogFollower(folder / f"{name}.log"), Selection()) for name in names}
        self._unsaid: dict[str, deque[str]] = {name: deque(maxlen=LAST_LINES) for name in self._logs}
        self.width = max(map(len, self._logs))

    def new_lines(self) -> Iterator[str]:
        """Yield the warnings and errors written since the last look."""
        for name, (log, selection) in self._logs.items():
            for line in log.new_lines():
                if selection.takes(line):
                    yield self._named(name, line)
                else:
                    self._unsaid[name].append(line)

    def path(self, name: str) -> Path:
        return self._logs[name][0].path

    def last_lines(self, name: str) -> list[str]:
        """Return the end of what a program wrote and `new_lines` left out, and forget it."""
        lines = [self._named(name, line) for line in self._unsaid[name]]
        self._unsaid[name].clear()
        return lines

    def _named(self, name: str, line: str) -> str:
        return f"{name:<{self.width}} | {line}"
