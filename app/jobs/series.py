"""A job's metric series as JSON or CSV, a page of rows at a time: there is a row for every step."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, Select, Text, cast, func, or_, select
from sqlalchemy.orm import Session

from app.database.session import Sessions
from app.database.tables import JobMetric
from app.jobs.protocol import MEASURED

ROWS_AT_ONCE = 2000
MOST_POINTS = 20_000
STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Rows = Sequence[Row[int, int, str]]
"""Step, epoch, and the values as the JSON text that is stored."""


class Series:
    """The rows of a job in the order of their steps; each page is read in a short transaction of its own."""

    def __init__(self, sessions: Sessions, job_id: str, *, points: int | None = None) -> None:
        """Read all rows, or with `points` about so many, evenly spread, and all that hold an evaluation."""
        self._sessions, self._job_id, self._points = sessions, job_id, points

    def as_json(self) -> Iterator[bytes]:
        """Yield one object: `job_id`, and `rows` of `step`, `epoch` and `values`."""
        yield b'{"job_id":"%b","rows":[' % self._job_id.encode()
        separator = ""
        for rows in self._pages():
            texts = (f'{{"step":{step},"epoch":{epoch},"values":{values}}}' for step, epoch, values in rows)
            yield (separator + ",".join(texts)).encode()
            separator = ","
        yield b"]}"

    def as_csv(self) -> Iterator[bytes]:
        """Yield a header and one line per step; a value that is a table itself is left to the JSON."""
        names = self._names()
        yield _line(["step", "epoch", *names])
        for rows in self._pages():
            yield b"".join(_line([step, epoch, *_cells(values, names)]) for step, epoch, values in rows)

    def _names(self) -> list[str]:
        names = {
            name
            for rows in self._pages()
            for _, _, values in rows
            for name, value in msgspec.json.decode(values).items()
            if not isinstance(value, dict | list)
        }
        return sorted(names)

    def _pages(self) -> Iterator[Rows]:
        last, query = -1, self._query()
        while True:
            with self._sessions() as session:
                rows = session.execute(query.where(JobMetric.step > last)).all()
            if rows:
                yield rows
                last = rows[-1].step
            if len(rows) < ROWS_AT_ONCE:
                return

    def _query(self) -> Select[int, int, str]:
        query = select(JobMetric.step, JobMetric.epoch, cast(JobMetric.values, Text)).where(
            JobMetric.job_id == self._job_id
        )
        if self._points is not None:
            with self._sessions() as session:
                query = query.where(self._is_shown(session, self._points))
        return query.order_by(JobMetric.step).limit(ROWS_AT_ONCE)

    def _is_shown(self, session: Session, points: int) -> ColumnElement[bool]:
        """Return the condition for the last row of each of so many equal stretches, and for evaluations."""
        own = JobMetric.job_id == self._job_id
        newest = session.scalar(select(func.max(JobMetric.step)).where(own)) or 0
        length = max(-(-newest // points), 1)
        last_of_each = select(func.max(JobMetric.step)).where(own).group_by((JobMetric.step - 1) // length)
        return or_(JobMetric.step.in_(last_of_each), JobMetric.values[MEASURED].as_float().is_not(None))


def _cells(values: str, names: Sequence[str]) -> Iterator[Any]:
    decoded = msgspec.json.decode(values)
    return (decoded.get(name, "") for name in names)


def _line(cells: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow([_harmless(cell) for cell in cells])
    return text.getvalue().encode()


def _harmless(cell: Any) -> Any:
    """A class may be called `=cmd()`; a leading quote makes it text again."""
    if isinstance(cell, str) and cell.startswith(STARTS_FORMULA):
        return f"'{cell}"
    return "" if cell is None else cell
