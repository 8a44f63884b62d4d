"""The installer behind `make`: what it refuses, what it remembers, what it repeats."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "install.py"


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def steps(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that an installation runs, recorded instead of run, on a machine that lacks nothing."""
    commands: list[list[str]] = []
    monkeypatch.setattr(install, "_run", commands.append)
    monkeypatch.setattr(install, "missing_libraries", list)
    free_on_the_disk(install.BYTES_NEEDED, install, monkeypatch)
    return commands


def free_on_the_disk(free: int, install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have so many bytes free wherever it installs, whatever the disk below the tests has left."""
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(install.shutil, "disk_usage", lambda path: usage)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text("torch==2.15.0 --hash=sha256:00\n", encoding="utf-8")
    return path


def kinds(commands: list[list[str]]) -> list[str]:
    """Name each command by what only it has."""
    marks = {"venv": "environment", "--require-hashes": "lock", "--no-deps": "project"}
    return [next(name for mark, name in marks.items() if mark in command) for command in commands]


def test_a_fresh_clone_gets_environment_lock_and_project(
    install: ModuleType, steps: list[list[str]], tmp_path: Path, lock: Path
) -> None:
    install.prepare(tmp_path / ".venv", [lock])
    assert kinds(steps) == ["environment", "lock", "project"]
    assert not any("--index-url" in command for command in steps)


def test_a_lock_is_installed_as_it_stands(
    install: ModuleType, steps: list[list[str]], tmp_path: Path, lock: Path
) -> None:
    install.prepare(tmp_path / ".venv", [lock])
    (installed,) = (command for command in steps if "--require-hashes" in command)
    assert "--no-deps" in installed


def test_a_second_start_installs_nothing(
    install: ModuleType, steps: list[list[str]], tmp_path: Path, lock: Path
) -> None:
    install.prepare(tmp_path / ".venv", [lock])
    steps.clear()
    install.prepare(tmp_path / ".venv", [lock])
    assert steps == []


def test_a_changed_lock_is_installed_again(
    install: ModuleType, steps: list[list[str]], tmp_path: Path, lock: Path
) -> None:
    install.prepare(tmp_path / ".venv", [lock])
    steps.clear()
    lock.write_text("torch==2.16.0 --hash=sha256:00\n", encoding="utf-8")
    install.prepare(tmp_path / ".venv", [lock])
    assert kinds(steps) == ["lock"]


def test_an_interrupted_installation_is_repeated(
    install: ModuleType,
    steps: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lock: Path,
) -> None:
    def interrupted(command: list[str]) -> None:
        steps.append(command)
        if "--require-hashes" in command:
            raise KeyboardInterrupt

    monkeypatch.setattr(install, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        install.prepare(tmp_path / ".venv", [lock])
    steps.clear()
    monkeypatch.setattr(install, "_run", steps.append)
    install.prepare(tmp_path / ".venv", [lock])
    assert kinds(steps) == ["lock", "project"]


def test_a_moved_environment_is_made_anew(
    install: ModuleType, steps: list[list[str]], tmp_path: Path, lock: Path
) -> None:
    install.prepare(tmp_path / "old", [lock])
    (tmp_path / "old").rename(tmp_path / "new")
    steps.clear()
    install.prepare(tmp_path / "new", [lock])
    assert kinds(steps)[0] == "environment"
    assert "--clear" in steps[0]


def test_missing_libraries_are_named_before_anything_is_downloaded(
    install: ModuleType,
    steps: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lock: Path,
) -> None:
    monkeypatch.setattr(install, "missing_libraries", lambda: [("libGL.so.1", "libgl1")])
    with pytest.raises(install.CannotInstallError, match=r"libGL\.so\.1.*\n.*apt-get install -y libgl1$"):
        install.prepare(tmp_path / ".venv", [lock])
    assert steps == []


def test_a_library_that_cannot_be_loaded_is_found_missing(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "SYSTEM_LIBRARIES", {"libc.so.6": "libc6", "libnowhere.so.9": "libnowhere9"})
    assert install.missing_libraries() == [("libnowhere.so.9", "libnowhere9")]


def test_a_python_without_venv_is_named(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    assert {package for _, package in install.missing_modules()} == {"python3-venv"}


def test_a_full_disk_is_noticed_first(
    install: ModuleType,
    steps: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lock: Path,
) -> None:
    free_on_the_disk(install.BYTES_NEEDED - 1, install, monkeypatch)
    with pytest.raises(install.CannotInstallError, match=r"about 9 GB in .*venv, but only 8\.6 GB are free"):
        install.prepare(tmp_path / ".venv", [lock])
    assert steps == []


def test_a_failing_command_shows_the_end_of_its_output(install: ModuleType) -> None:
    script = "import sys; [print(i) for i in range(99)]; sys.exit(3)"
    with pytest.raises(install.CannotInstallError, match=r"97\n98\nthis command failed"):
        install._run([sys.executable, "-c", script])


def test_a_python_too_old_reads_why() -> None:
    """The line that says so must come before anything an older Python does not know."""
    script = SCRIPT.read_text(encoding="utf-8").replace("OLDEST_PYTHON = (3, 11)", "OLDEST_PYTHON = (9, 1)")
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "Python 9.1 or newer is needed" in answer.stderr
