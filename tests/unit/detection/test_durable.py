"""Files that are whole or not there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from detection import durable
from detection.durable import remove_temporary_files, sha256_of, write_durably


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_durably(path, b"first") == hashlib.sha256(b"first").hexdigest() == sha256_of(path)
    write_durably(path, memoryview(b"second"))
    assert path.read_bytes() == b"second"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace", "read back"])
def test_a_failing_write_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    write_durably(path, b"older")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif call == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr(durable, "sha256_of", lambda _: "0" * 64)
    with pytest.raises(OSError, match=r"Input/output|read back"):
        write_durably(path, b"newer")
    assert path.read_bytes() == b"older"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "file.tmp-123").write_bytes(b"half")
    (tmp_path / "file").write_bytes(b"whole")
    assert remove_temporary_files(tmp_path) == ["file.tmp-123"]
    assert names(tmp_path) == ["file"]
