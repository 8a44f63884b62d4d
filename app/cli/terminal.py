"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

results = Console(soft_wrap=True, highlight=False)
notes = Console(stderr=True, soft_wrap=True, highlight=False)


def say(text: str) -> None:
    """Print one line for people; never interpreted as markup, because it may hold anything."""
    notes.print(text, markup=False, emoji=False)


def show(text: str) -> None:
    """Print one line of a result."""
    results.print(text, markup=False, emoji=False)


def show_json(document: Any) -> None:
    show(json.dumps(document, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings, aligned; never cut off, so that ids can be copied and lines searched."""
    table = [list(columns), *(["" if cell is None else str(cell) for cell in row] for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for row in table:
        show("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
