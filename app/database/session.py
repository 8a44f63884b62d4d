"""Engines and sessions: SQLite with settings that survive a kill, or PostgreSQL."""

from __future__ import annotations

from typing import Any

import pysqlite3
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session, sessionmaker

from app.settings import Settings

SQLITE_OLDEST = (3, 51, 3)
"""Older ones can corrupt a database in WAL mode when the log is reset."""
BUSY_TIMEOUT_MS = 15_000

CONNECT_S = 5
"""Longest wait for a new connection."""
POSTGRES_DISK_FULL = "53100"

Sessions = sessionmaker[Session]


def create_database_engine(settings: Settings) -> Engine:
    """Return an engine for the address in the settings; nothing is connected yet."""
    url = make_url(settings.database_address)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(settings.database_address)
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_recycle=1800,
        pool_size=10,
        max_overflow=20,
        connect_args={
            "connect_timeout": CONNECT_S,
            # a server that vanished without a word is noticed within a lease, not after a quarter of an hour
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "options": (
                "-c statement_timeout=15000 -c lock_timeout=5000"
                " -c idle_in_transaction_session_timeout=30000 -c timezone=UTC"
            ),
        },
    )
    if engine.dialect.driver == "psycopg":
        from app.database.silence import give_up_on_silence  # the driver is there only where it is used

        give_up_on_silence(engine)
    return engine


def create_sessions(engine: Engine) -> Sessions:
    return sessionmaker(engine, expire_on_commit=False)


def is_disk_full(error: object) -> bool:
    """Return whether a driver's error says that there is no room for what was to be written."""
    if isinstance(error, pysqlite3.Error):
        return bool(error.sqlite_errorcode == pysqlite3.SQLITE_FULL)
    return getattr(error, "sqlstate", None) == POSTGRES_DISK_FULL


def _sqlite_engine(address: str) -> Engine:
    if pysqlite3.sqlite_version_info < SQLITE_OLDEST:
        raise RuntimeError(f"SQLite {pysqlite3.sqlite_version} is too old: 3.51.3 or newer is needed")
    engine = create_engine(
        address,
        module=pysqlite3,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock first: a transaction that turns from reading to writing fails at once otherwise.

    A connection marked with the execution option `read_only` only reads and does not wait for writers.
    """
    reads_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
