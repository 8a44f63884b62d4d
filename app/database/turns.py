"""Sessions that take turns: what one of them checks, none of the others changes before it has committed."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session


class Turn(IntEnum):
    """Advisory locks of PostgreSQL; writers of SQLite wait in line from the start of their transaction."""

    UPGRADE = 7_471_001
    QUEUE = 7_471_002
    """Whether the queue has room, until the job is in it."""
    ROOM = 7_471_003
    """Whether the quota has room, until what needs it is recorded."""
    DEVICES = 7_471_004
    """Whether accelerators are free, until they are leased."""


def take_turn(session: Session | Connection, turn: Turn) -> None:
    """Wait for everybody who has this turn, and have it until the transaction ends.

    Who takes several takes them in their order here.
    """
    connection = session.connection() if isinstance(session, Session) else session
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:turn)"), {"turn": int(turn)})
