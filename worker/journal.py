"""A training's metric series beside its checkpoints, so that a resumed series has no hole.

A row is in the journal before the checkpoint of its step can be. What the database had not heard of when the
process was killed is told to it again by the next attempt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from app.jobs.protocol import SeriesRow


class Journal:
    """An append-only file of rows in the order of their steps; a second line of a step replaces the first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(_line(step, epoch, values))

    def cut_after(self, step: int) -> None:
        """Forget the rows beyond `step`, where the training goes on."""
        shorter = self._path.with_suffix(".new")
        with shorter.open("wb") as file:
            for row in self.rows():
                if row[0] <= step:
                    file.write(_line(*row))
        shorter.replace(self._path)

    def rows(self) -> Iterator[SeriesRow]:
        """Yield the rows in order, one at a time: there may be a million."""
        newest: SeriesRow | None = None
        for row in self._read():
            if newest is not None and newest[0] != row[0]:
                yield newest
            newest = row
        if newest is not None:
            yield newest

    def _read(self) -> Iterator[SeriesRow]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                try:
                    yield msgspec.json.decode(line, type=tuple[int, int, dict[str, Any]])
                except msgspec.MsgspecError:
                    continue  # the process was killed while it wrote this line


def _line(step: int, epoch: int, values: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode([step, epoch, values]) + b"\n"
