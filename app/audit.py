"""Who changed what: one row per write, added in the transaction of the write itself."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.database.tables import AuditRow


@dataclass(frozen=True, slots=True)
class Author:
    """Who asked for a change, and by which request."""

    name: str
    request_id: str


def note_write(session: Session, author: Author, action: str, subject: str) -> None:
    session.add(AuditRow(actor=author.name, action=action, subject=subject, request_id=author.request_id))
