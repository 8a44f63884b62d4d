"""Each program that is started alone ends with the status for settings when one is not valid."""

from __future__ import annotations

import os

import pytest

import app.engine.__main__ as engine
import worker.__main__ as worker
from app.settings import get_settings
from app.settings_faults import faults_end_the_process


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARRIER_PORT", "abc")
    get_settings.cache_clear()


@pytest.mark.usefixtures("wrong")
def test_engine_and_worker_name_the_setting(capsys: pytest.CaptureFixture[str]) -> None:
    for program in (lambda: engine.main(["--check"]), lambda: worker.main(["--queue", "cpu"])):
        with pytest.raises(SystemExit) as ended:
            program()
        assert ended.value.code == os.EX_CONFIG
        assert "HARRIER_PORT: Input should be a valid integer" in capsys.readouterr().err


@pytest.mark.usefixtures("wrong")
def test_no_other_error_is_taken_for_one_of_settings() -> None:
    with pytest.raises(KeyError), faults_end_the_process():
        raise KeyError("other")
