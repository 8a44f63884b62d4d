"""A job's metric series as JSON or CSV, a page of rows at a time: there is a row for every step."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, Select, Text, cast, func, or_, select, true
from sqlalchemy.orm import Session

from app.database.session import Sessions
from app.database.tables import JobMetric
from app.jobs.protocol import MEASURED

ROWS_PER_PAGE = 2000
"""So many are in memory at once, and read in one transaction."""
STEPS_PER_LOOK = 20_000
"""Of so many the database tells the names at once: no query takes long."""
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
        """Return the names of values that are no tables; the database reads them, we read each row once."""
        names: set[str] = set()
        for start in range(0, self._newest() + 1, STEPS_PER_LOOK):
            steps = JobMetric.step.between(start, start + STEPS_PER_LOOK - 1)
            with self._sessions() as session:
                names.update(session.scalars(_names_in(session).where(self._own, steps)))
        return sorted(names)

    def _newest(self) -> int:
        with self._sessions() as session:
            return session.scalar(select(func.max(JobMetric.step)).where(self._own)) or 0

    def _pages(self) -> Iterator[Rows]:
        return self._whole_pages() if self._points is None else self._shown_pages(self._points)

    def _whole_pages(self) -> Iterator[Rows]:
        last = -1
        while True:
            rows = self._read(self._rows.where(JobMetric.step > last).limit(ROWS_PER_PAGE))
            if rows:
                yield rows
                last = rows[-1].step
            if len(rows) < ROWS_PER_PAGE:
                return

    def _shown_pages(self, points: int) -> Iterator[Rows]:
        steps = self._shown_steps(points)
        for start in range(0, len(steps), ROWS_PER_PAGE):
            yield self._read(self._rows.where(JobMetric.step.in_(steps[start : start + ROWS_PER_PAGE])))

    def _shown_steps(self, points: int) -> Sequence[int]:
        """Return the last step of each of so many equal stretches, and those that hold an evaluation."""
        length = max(-(-self._newest() // points), 1)
        last_of_each = (
            select(func.max(JobMetric.step)).where(self._own).group_by((JobMetric.step - 1) // length)
        )
        is_measured = JobMetric.values[MEASURED].as_float().is_not(None)
        shown = select(JobMetric.step).where(self._own, or_(JobMetric.step.in_(last_of_each), is_measured))
        with self._sessions() as session:
            return session.scalars(shown.order_by(JobMetric.step)).all()

    @property
    def _own(self) -> ColumnElement[bool]:
        return JobMetric.job_id == self._job_id

    @property
    def _rows(self) -> Select[int, int, str]:
        columns = select(JobMetric.step, JobMetric.epoch, cast(JobMetric.values, Text))
        return columns.where(self._own).order_by(JobMetric.step)

    def _read(self, query: Select[int, int, str]) -> Rows:
        with self._sessions() as session:
            return session.execute(query).all()


def _names_in(session: Session) -> Select[str]:
    """Return the query for the names in the values of rows, without those of objects and lists."""
    if session.get_bind().dialect.name == "postgresql":
        each = func.jsonb_each(JobMetric.values).table_valued("key", "value")
        kind: ColumnElement[Any] = func.jsonb_typeof(each.c.value)
    else:
        each = func.json_each(JobMetric.values).table_valued("key", "type")
        kind = each.c.type
    query = select(each.c.key).select_from(JobMetric).join(each, true())
    return query.where(kind.not_in(("object", "array"))).distinct()


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
