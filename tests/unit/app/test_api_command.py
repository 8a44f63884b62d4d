"""`harrier api`, as containers start it: the first key comes from a file; without any key it stays shut."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli import server
from app.cli.client import CommandError
from app.database.session import create_database_engine, create_sessions
from app.database.upgrade import upgrade_database
from app.keys.service import ExposureError, KeyMark, caller_of, find_key
from app.settings import Settings

SECRET = "k" * 40


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    settings = Settings(home=tmp_path / "home", host="0.0.0.0", bootstrap_key_file=file)
    monkeypatch.setattr(server, "get_settings", lambda: settings)
    settings.home_path.mkdir()
    upgrade_database(settings)
    return settings


def test_the_first_key_is_there_before_it_serves(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    callers = []

    def serving(settings: Settings) -> None:
        engine = create_database_engine(settings)
        sessions = create_sessions(engine)
        callers.append(caller_of(find_key(sessions, KeyMark.of(SECRET))))
        engine.dispose()

    monkeypatch.setattr("app.server.run_api", serving)
    server.api()
    assert [caller.name for caller in callers if caller] == ["bootstrap"]


def test_it_does_not_serve_others_without_a_key(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_all = settings.model_copy(update={"bootstrap_key_file": None})
    monkeypatch.setattr(server, "get_settings", lambda: open_to_all)
    monkeypatch.setattr("app.server.run_api", lambda settings: pytest.fail("it serves"))
    with pytest.raises(ExposureError):
        server.api()


def test_it_makes_neither_a_home_nor_a_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path / "home")
    monkeypatch.setattr(server, "get_settings", lambda: settings)
    monkeypatch.setattr("app.server.run_api", lambda settings: pytest.fail("it serves"))
    with pytest.raises(CommandError, match=f"there is no home at {settings.home_path}"):
        server.api()
    assert not settings.home_path.exists()
    settings.home_path.mkdir()
    with pytest.raises(CommandError, match="run `harrier migrate`"):
        server.api()
