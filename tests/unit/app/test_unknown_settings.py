"""A misspelt setting is named, wherever it stands; what is used otherwise is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli import commands
from app.settings import get_settings
from app.unknown_settings import NO_SETTINGS, unknown_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_misspelt_setting_is_named_with_what_was_meant() -> None:
    assert unknown_settings(["HARRIER_PROT"]) == ["HARRIER_PROT is no setting; did you mean HARRIER_PORT?"]
    assert unknown_settings(["HARRIER_QQQQQQ"]) == ["HARRIER_QQQQQQ is no setting"]


def test_settings_in_any_case_and_what_is_none_of_ours_are_let_alone() -> None:
    assert unknown_settings(["HARRIER_PORT", "harrier_host", "PATH", *NO_SETTINGS]) == []


def test_the_file_is_read_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HARRIER_HOTS=0.0.0.0\nPOSTGRES_PASSWORD=x\n", encoding="utf-8")
    assert unknown_settings([]) == ["HARRIER_HOTS is no setting; did you mean HARRIER_HOST?"]


def test_the_list_of_settings_warns_beside_its_results(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr("app.cli.server.say", said.append)
    monkeypatch.setenv("HARRIER_PROT", "9")
    monkeypatch.setattr("sys.argv", ["harrier", "settings"])
    get_settings.cache_clear()
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 0
    assert said == ["HARRIER_PROT is no setting; did you mean HARRIER_PORT?"]
    assert "HARRIER_PROT" not in capfd.readouterr().out
