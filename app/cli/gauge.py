"""How far something is: a bar in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from app.cli.terminal import notes, say

EVERY_S = 5.0
"""Between two plain lines."""

Advance = Callable[[int], None]


class PlainLines:
    """Says the newest of many lines now and then; what is over within seconds is not worth a line."""

    def __init__(self) -> None:
        self._said = ""
        self._due_at = time.monotonic() + EVERY_S

    def offer(self, line: str, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if line != self._said and (at_once or now >= self._due_at):
            say(line)
            self._said, self._due_at = line, now + EVERY_S


@contextmanager
def counted_bytes(name: str, total: int | None) -> Iterator[Advance]:
    """Show how much of a file has been transferred; the block says whenever it was some more."""
    columns = (DownloadColumn(), TransferSpeedColumn())
    with _counted(name, total, columns, decimal) as advance:
        yield advance


@contextmanager
def counted_pictures(doing: str, total: int) -> Iterator[Advance]:
    """Show how many pictures are done; the block says whenever it was one more."""
    with _counted(doing, total, (MofNCompleteColumn(), TimeRemainingColumn()), str) as advance:
        yield advance


@contextmanager
def _counted(
    name: str, total: int | None, columns: tuple[ProgressColumn, ...], as_text: Callable[[int], str]
) -> Iterator[Advance]:
    if not notes.is_terminal:
        yield _plain_count(name, total, as_text)
        return
    description = TextColumn("{task.description}", markup=False)
    with Progress(description, BarColumn(), *columns, console=notes, transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda more: progress.advance(task, more)


def _plain_count(name: str, total: int | None, as_text: Callable[[int], str]) -> Advance:
    lines, done = PlainLines(), 0
    whole = f" of {as_text(total)}" if total is not None else ""

    def advance(more: int) -> None:
        nonlocal done
        done += more
        lines.offer(f"  {name}: {as_text(done)}{whole}")

    return advance
