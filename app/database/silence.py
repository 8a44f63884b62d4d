"""A PostgreSQL that says nothing any more: who waits for it hears so in time.

A server that was frozen, or whose disk was, keeps its connections. The kernel goes on taking what is sent to
it, so no keepalive and no timeout of TCP ends the wait, and the timeout of a statement is the server's own.
"""

from __future__ import annotations

from threading import Lock
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import READY_NONE
from sqlalchemy import Engine, event

STATEMENT_S = 20.0
"""Longest silence in the middle of a statement: the server itself ends one after 15 s."""
PING_S = 5.0
"""Longest silence when a connection from the pool is asked whether it lives; a new one may take as long."""

Value = TypeVar("Value")


class ImpatientConnection(psycopg.Connection[Any]):
    """Gives up, and closes itself, when the server has said nothing for too long."""

    patience_s = STATEMENT_S

    def wait(self, gen: PQGen[Value], *args: Any, **kwargs: Any) -> Value:
        return super().wait(self._until_silent(gen), *args, **kwargs)

    def _until_silent(self, gen: PQGen[Value]) -> PQGen[Value]:
        """Pass on what the driver sends, which looks ten times a second whether anything has come."""
        heard_at = monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready != READY_NONE:
                    heard_at = monotonic()
                elif monotonic() - heard_at > self.patience_s:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as end:
            value: Value = end.value
            return value


class _Connector:
    """Makes connections: one thread at a time tries a server that did not answer.

    The others hear so at once. Waiting, they would take all the threads that there are for requests.
    """

    def __init__(self) -> None:
        self._is_silent = False
        self._trying = Lock()

    def connect(self, dialect: object, record: object, args: Any, values: Any) -> ImpatientConnection:
        if not self._is_silent:
            return self._connect(*args, **values)
        if not self._trying.acquire(blocking=False):
            raise psycopg.OperationalError("the server has not answered for some seconds")
        try:
            return self._connect(*args, **values)
        finally:
            self._trying.release()

    def _connect(self, *args: Any, **values: Any) -> ImpatientConnection:
        try:
            connection = ImpatientConnection.connect(*args, **values)
        except psycopg.errors.ConnectionTimeout:
            self._is_silent = True
            raise
        self._is_silent = False
        return connection


def give_up_on_silence(engine: Engine) -> None:
    """Have every connection of an engine that uses psycopg give up on a server that says nothing."""
    event.listen(engine, "do_connect", _Connector().connect)
    event.listen(engine, "checkout", lambda connection, *_: _be_patient(connection, STATEMENT_S))
    event.listen(engine, "checkin", lambda connection, *_: _be_patient(connection, PING_S))


def _be_patient(connection: ImpatientConnection | None, patience_s: float) -> None:
    if connection is not None:  # one that was lost is returned without
        connection.patience_s = patience_s
