"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

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
    """Print rows under headings; plain text, so that it can be cut and sorted."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    results.print(table, markup=False, emoji=False, crop=False, no_wrap=True)
