"""What the programs write to their log files, line by line on the terminal, each with its program's name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

MOST_BYTES = 1024 * 1024
"""Read at once; what a burst leaves over comes with the next look."""


class LogFollower:
    """Follows one growing log file, also over its rotation; begins at its present end."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self._path = name, path
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
        with self._path.open("rb") as file:
            file.seek(self._position)
            content = file.read(MOST_BYTES)
        self._position += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")

    def _facts(self) -> tuple[int, int] | None:
        try:
            facts = self._path.stat()
        except FileNotFoundError:
            return None
        return facts.st_ino, facts.st_size


class Console:
    """The new lines of several logs, ready to be printed."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._followers = [LogFollower(name, folder / f"{name}.log") for name in names]
        self._width = max(len(follower.name) for follower in self._followers)

    def new_lines(self) -> Iterator[str]:
        for follower in self._followers:
            for line in follower.new_lines():
                yield f"{follower.name:<{self._width}} | {line}"
