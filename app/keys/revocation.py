"""Making a key worthless: by whatever of it is at hand, and without repeating a secret."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.database.tables import ApiKey, AuditRow, utc_now
from app.errors import InvalidInputError
from app.keys.service import BRAND, SHORTEST_SECRET, prefix_of


def revoke_key(session: Session, given: str) -> ApiKey | None:
    """Make a key worthless at once and return it; None when there is no such valid key.

    Args:
        given: its id, its prefix with or without `hr_`, the whole key, or a name that no other key has.

    Raises:
        InvalidInputError: several keys have this name.
    """
    key = _find(session, given.strip())
    if key is None:
        return None
    done = session.execute(
        update(ApiKey)
        .where(ApiKey.id == key.id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=utc_now())
        .returning(ApiKey.id)
    ).all()
    if done:
        session.add(AuditRow(actor="command line", action="key.revoke", subject=f"keys/{key.id}"))
    session.commit()
    return key if done else None


def without_secret(given: str) -> str:
    """Return what somebody typed for a key as it may be repeated: of a whole key its prefix."""
    brand, _, rest = given.partition("_")
    prefix, has_secret, _ = rest.partition("_")
    if brand == BRAND and has_secret:
        return f"{BRAND}_{prefix}_…"
    return given if len(given) < SHORTEST_SECRET else "like that"


def _find(session: Session, given: str) -> ApiKey | None:
    prefixes = {given, given.removeprefix(f"{BRAND}_"), prefix_of(given)}
    valid = select(ApiKey).where(ApiKey.revoked_at.is_(None))
    key = session.scalars(valid.where((ApiKey.id == given) | ApiKey.prefix.in_(prefixes))).first()
    if key is not None:
        return key
    named = session.scalars(valid.where(ApiKey.name == given).order_by(ApiKey.id)).all()
    if len(named) > 1:
        listed = ", ".join(f"{BRAND}_{each.prefix}" for each in named)
        raise InvalidInputError(f"{len(named)} keys have this name; name one by its prefix: {listed}")
    return named[0] if named else None
