"""The same creating request sent twice makes one thing: the first answer is remembered with what it made.

A key belongs to its caller: with another method, path or content it is refused, whatever was asked first.
It is reserved before the work begins, so that a second request meanwhile is refused, and answered in the
very transaction that creates the thing, so that no crash can leave a thing without its answer. Only answers
that created something are remembered: after an error the key is free again.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import psutil
from pydantic import BaseModel
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.api.links import published_links, published_under
from app.database.session import Sessions
from app.database.tables import IdempotencyKey, utc_now
from app.errors import IdempotencyKeyInUseError, IdempotencyKeyReusedError

FORSAKEN_AFTER = timedelta(hours=1)
"""A reservation this old on another host belongs to a process that was killed."""


class ReplayedAnswer(Exception):  # noqa: N818 - not an error: the first answer, given again
    def __init__(self, row: IdempotencyKey) -> None:
        super().__init__(row.key)
        self.status_code = row.status_code or 200
        self.headers = {**row.headers, "Idempotency-Replayed": "true"}
        self.body = {**row.body, "links": published_links(row.body["links"])} if row.body else None


def fingerprint(call: str, fields: Mapping[str, Any]) -> str:
    """Return what two requests have in common when they ask for the same, whatever their bytes were."""
    text = json.dumps([call, fields], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Once:
    """One creating request, and the key its client gave it; without a key every step does nothing.

    Its `call` is its method and path.
    """

    def __init__(self, sessions: Sessions, *, owner: str, call: str, key: str | None, hours: float) -> None:
        self._sessions = sessions
        self._owner, self._call, self._key = owner, call, key
        self._lifetime = timedelta(hours=hours)
        self._reserved_id: str | None = None
        self._first: IdempotencyKey | None = None
        self._fingerprint = ""

    def reserve(self) -> None:
        """Take the key before the work begins.

        Raises:
            IdempotencyKeyInUseError: the first request is still running.
        """
        if self._key is None:
            return
        with self._sessions() as session:
            self._forget_old(session)
            first = self._find(session)
            if first is not None and first.status_code is None:
                if not _is_forsaken(first):
                    raise IdempotencyKeyInUseError("the first request with this Idempotency-Key still runs")
                session.delete(first)
                session.flush()
                first = None
            if first is None:
                self._insert(session)
            self._first = first

    def same_as(self, fields: Mapping[str, Any]) -> None:
        """Say what the request asks for, once it is known.

        Raises:
            ReplayedAnswer: it was answered before.
            IdempotencyKeyReusedError: the key was used for something else.
        """
        if self._key is None:
            return
        self._fingerprint = fingerprint(self._call, fields)
        if self._first is None:
            return
        if self._first.fingerprint != self._fingerprint:
            raise IdempotencyKeyReusedError("this Idempotency-Key was used for another request")
        raise ReplayedAnswer(self._first)

    def answer(self, session: Session, *, status_code: int, headers: dict[str, str], body: BaseModel) -> None:
        """Remember the answer, in the transaction that makes what it speaks of.

        Its addresses are kept without a prefix: whoever asks again may come by another way.
        """
        if self._reserved_id is None:
            return
        with published_under(""):
            kept_body = body.model_dump(mode="json")
        kept = session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.id == self._reserved_id, IdempotencyKey.status_code.is_(None))
            .values(status_code=status_code, headers=headers, body=kept_body, fingerprint=self._fingerprint)
            .returning(IdempotencyKey.id)
        ).one_or_none()
        if kept is None:  # taken over as forsaken: whoever took it answers
            raise IdempotencyKeyInUseError("another request with this Idempotency-Key has taken over")

    def release(self) -> None:
        """Free the key of a request that made nothing."""
        if self._reserved_id is None:
            return
        with self._sessions() as session:
            session.execute(
                delete(IdempotencyKey).where(
                    IdempotencyKey.id == self._reserved_id, IdempotencyKey.status_code.is_(None)
                )
            )
            session.commit()

    def _find(self, session: Session) -> IdempotencyKey | None:
        return session.scalars(
            select(IdempotencyKey).where(IdempotencyKey.owner == self._owner, IdempotencyKey.key == self._key)
        ).one_or_none()

    def _insert(self, session: Session) -> None:
        row = IdempotencyKey(owner=self._owner, key=self._key, fingerprint="", headers=_this_process())
        session.add(row)
        try:
            session.commit()
        except IntegrityError:
            raise IdempotencyKeyInUseError("the first request with this Idempotency-Key still runs") from None
        self._reserved_id = row.id

    def _forget_old(self, session: Session) -> None:
        session.execute(
            delete(IdempotencyKey).where(
                IdempotencyKey.created_at < utc_now() - self._lifetime,
                IdempotencyKey.status_code.is_not(None),
            )
        )


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _is_forsaken(row: IdempotencyKey) -> bool:
    """Return whether the process that reserved a key is gone: known at once on this host, later elsewhere."""
    process = row.headers
    if process.get("host") != socket.gethostname():
        return utc_now() - row.created_at > FORSAKEN_AFTER
    try:
        return bool(psutil.Process(process["pid"]).create_time() != process["started"])
    except psutil.NoSuchProcess:
        return True
