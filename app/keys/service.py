"""API keys: shown once, stored as a hash; and the rule that an open server listens at home only."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.address import is_loopback
from app.database.session import Sessions
from app.database.tables import ApiKey, AuditRow, utc_now
from app.errors import HarrierError, InvalidInputError
from app.names import checked_name
from app.settings import Settings

BRAND = "hr"
PREFIX_BYTES = 6
SECRET_BYTES = 32
SHORTEST_SECRET = 32
"""Characters of a key that was chosen by people for the bootstrap file."""
LAST_USED_EVERY = timedelta(minutes=1)
"""A busy key is not written down with every request."""


class Scope(StrEnum):
    READ = "read"
    DETECT = "detect"
    TRAIN = "train"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and what they may do."""

    id: str
    """Empty for a caller at home, who needs no key."""
    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


AT_HOME = Caller(id="", name="local", scopes=frozenset(Scope))
"""Anybody on a server that listens on loopback only."""


class ExposureError(HarrierError):
    """The server would listen to others without asking for a key."""

    code, title = "open_to_others", "Nobody would need a key"


class BootstrapKeyError(HarrierError):
    code, title = "bootstrap_key", "The bootstrap key file cannot be used"


def create_key(
    session: Session, name: str, scopes: Iterable[Scope], *, expires_at: datetime | None = None
) -> str:
    """Store a new key and return its secret, which cannot be had again.

    Raises:
        InvalidInputError: the name is empty, too long, or holds characters that nobody can see.
    """
    name = _checked(name)
    prefix = secrets.token_hex(PREFIX_BYTES)
    secret = f"{BRAND}_{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    _store(session, name, prefix, secret, scopes, expires_at)
    return secret


def list_keys(session: Session) -> list[ApiKey]:
    return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))


@dataclass(frozen=True, slots=True)
class KeyMark:
    """What a secret is looked up and proved by; the secret itself is in nobody's memory."""

    prefix: str
    hash: str

    @classmethod
    def of(cls, secret: str) -> KeyMark:
        return cls(prefix_of(secret), _hash(secret))


def find_key(reading: Sessions, mark: KeyMark) -> ApiKey | None:
    """Return the key that this marks, valid or not; None when it is unknown or wrong, after the same work."""
    with reading() as session:
        row = session.scalars(select(ApiKey).where(ApiKey.prefix == mark.prefix)).one_or_none()
    stored = row.hash if row is not None else _hash("")
    matches = hmac.compare_digest(stored, mark.hash)
    return row if matches else None


def caller_of(key: ApiKey | None) -> Caller | None:
    """Return whose key this is; None when it is none, or is revoked or expired by now."""
    if key is None or not _is_valid(key):
        return None
    return Caller(id=key.id, name=key.name, scopes=frozenset(Scope(scope) for scope in key.scopes))


def is_use_unnoted(key: ApiKey) -> bool:
    """Return whether it was so long ago that its use was written down that it should be again."""
    return key.last_used_at is None or utc_now() - key.last_used_at >= LAST_USED_EVERY


def note_use(sessions: Sessions, key: ApiKey) -> None:
    with sessions() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key.id).values(last_used_at=utc_now()))
        session.commit()


def bootstrap_key(settings: Settings, sessions: Sessions) -> bool:
    """Make the content of the bootstrap file the first key, for everything; False when there is a key."""
    if settings.bootstrap_key_file is None:
        return False
    secret = _read_bootstrap_file(settings)
    with sessions() as session:
        if session.scalar(select(func.count()).select_from(ApiKey)):
            return False
        _store(session, "bootstrap", prefix_of(secret), secret, list(Scope), None)
    return True


def keys_are_needed(settings: Settings) -> bool:
    return settings.require_keys or not is_loopback(settings.host)


def check_exposure(settings: Settings, sessions: Sessions) -> None:
    """Take the bootstrap key, if there is one to take, and refuse to serve others without any key.

    Raises:
        ExposureError: the address is not loopback, and there is no valid key.
    """
    bootstrap_key(settings, sessions)
    if is_loopback(settings.host):
        return
    with sessions() as session:
        keys = [row for row in list_keys(session) if _is_valid(row)]
    if not keys:
        raise ExposureError(
            f"{settings.host} can be reached by others and there is no API key: make one with"
            " `harrier keys create`, name a file in HARRIER_BOOTSTRAP_KEY_FILE, or listen on 127.0.0.1"
        )


def _checked(name: str) -> str:
    try:
        return checked_name(name.strip())
    except ValueError as error:
        raise InvalidInputError(f"the key's name: {error}") from None


def _store(
    session: Session,
    name: str,
    prefix: str,
    secret: str,
    scopes: Iterable[Scope],
    expires_at: datetime | None,
) -> None:
    row = ApiKey(
        name=name,
        prefix=prefix,
        hash=_hash(secret),
        scopes=[scope.value for scope in scopes],
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    session.add(AuditRow(actor="command line", action="key.create", subject=f"keys/{row.id}"))
    session.commit()


def _read_bootstrap_file(settings: Settings) -> str:
    assert settings.bootstrap_key_file is not None
    try:
        secret = settings.bootstrap_key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BootstrapKeyError(f"{settings.bootstrap_key_file} cannot be read: {error}") from None
    if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise BootstrapKeyError(
            f"{settings.bootstrap_key_file} must hold one word of at least {SHORTEST_SECRET} characters"
        )
    return secret


def prefix_of(secret: str) -> str:
    """Return what a key is looked up by: part of our own keys, a hash of one that people chose."""
    parts = secret.split("_", 2)
    if len(parts) == 3 and parts[0] == BRAND and len(parts[1]) == 2 * PREFIX_BYTES:
        return parts[1]
    return f"b{_hash(secret)[:12]}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _is_valid(row: ApiKey) -> bool:
    expired = row.expires_at is not None and row.expires_at <= utc_now()
    return row.revoked_at is None and not expired
