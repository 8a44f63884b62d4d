"""A series as CSV that no spreadsheet will run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from app.database.tables import JobMetric

STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(rows: Sequence[JobMetric]) -> Iterator[str]:
    """Yield a header and one line per step; a value that is a table itself is left to the JSON."""
    names = sorted({name for row in rows for name, value in row.values.items() if not _is_table(value)})
    yield _line(["step", "epoch", *names])
    for row in rows:
        yield _line([row.step, row.epoch, *(row.values.get(name, "") for name in names)])


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow([_harmless(cell) for cell in cells])
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    """A class may be called `=cmd()`; a leading quote makes it text again."""
    if isinstance(cell, str) and cell.startswith(STARTS_FORMULA):
        return f"'{cell}"
    return "" if cell is None else cell


def _is_table(value: Any) -> bool:
    return isinstance(value, dict | list)
