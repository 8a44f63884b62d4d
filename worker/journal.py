"""A training's metric series beside its checkpoints, so that a resumed series has no hole.

A row is in the journal before the checkpoint of its step can be. What the database had not heard of when the
process was killed is told to it again by the next attempt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from worker.report import Row


class Journal:
    """An append-only file, one row a line; a later line of the same step replaces the earlier one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        line = msgspec.json.encode([step, epoch, values])
        with self._path.open("ab") as file:
            file.write(line + b"\n")

    def cut_after(self, step: int) -> list[Row]:
        """Forget the rows beyond `step`, where the training goes on; return the others in order."""
        rows = {row[0]: row for row in self._read() if row[0] <= step}
        kept = [rows[number] for number in sorted(rows)]
        shorter = self._path.with_suffix(".new")
        shorter.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in kept))
        shorter.replace(self._path)
        return kept

    def _read(self) -> Iterator[Row]:
        if not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines():
            try:
                yield msgspec.json.decode(line, type=tuple[int, int, dict[str, Any]])
            except msgspec.MsgspecError:
                continue  # the process was killed while it wrote this line
