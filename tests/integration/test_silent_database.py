"""A PostgreSQL that is frozen: its connections stay open, and nobody waits on them for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from app.database.session import create_database_engine
from app.settings import Settings
from tests.services import running_postgres


def asked(engine: Engine) -> str:
    """Return what the database says, or what is said about it."""
    try:
        with engine.connect() as connection:
            return str(connection.execute(text("select 'alive'")).scalar_one())
    except OperationalError as error:
        return str(error.orig)


def test_who_waits_for_a_database_that_says_nothing_hears_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("silence.STATEMENT_S", "silence.PING_S", "session.CONNECT_S"):
        monkeypatch.setattr(f"app.database.{name}", 1)
    with running_postgres() as server:
        engine = create_database_engine(Settings(database_url=server.address, _env_file=None))
        with engine.connect() as busy, ThreadPoolExecutor(4) as threads:
            assert asked(engine) == "alive"
            with server.frozen():
                with pytest.raises(OperationalError, match="the server does not answer") as raised:
                    busy.execute(text("select 1"))
                assert raised.value.connection_invalidated
                assert "timeout" in asked(engine), "the pooled one is silent, and a new one cannot be made"
                later = list(threads.map(asked, [engine] * 4))
                assert any("timeout" in each for each in later), later
                assert "the server has not answered for some seconds" in later
            assert asked(engine) == "alive"
            assert set(threads.map(asked, [engine] * 4)) == {"alive"}
        engine.dispose()
