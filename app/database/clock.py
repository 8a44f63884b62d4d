"""The database's clock: leases are compared with it, never with the clock of a worker."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class database_now(FunctionElement[float]):  # noqa: N801 - reads like the SQL function that it is
    """Seconds since 1970 by the clock of the database server."""

    type = Float()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite(element: database_now, compiler: Any, **_: Any) -> str:
    return "unixepoch('subsec')"


@compiles(database_now, "postgresql")
def _postgresql(element: database_now, compiler: Any, **_: Any) -> str:
    return "extract(epoch from clock_timestamp())"
