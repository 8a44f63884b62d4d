"""The documents say what the code does: settings, error codes, commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.settings import MIB, Settings

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
GIB = 1024 * MIB


def default_of(name: str, value: Any) -> str:
    """Write a default as people read it."""
    if value is None or value == "" or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if name.endswith("_bytes"):
        return f"{value // GIB} GiB" if value % GIB == 0 else f"{value // MIB} MiB"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}".replace(",", " ")
    return f"{value:g}" if isinstance(value, float) else str(value)


def rows() -> list[str]:
    """The table of settings as it should stand in docs/operations.md."""
    return [
        f"| `HARRIER_{name.upper()}` | {default_of(name, field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


def test_operations_lists_every_setting_and_no_other() -> None:
    found = [line for line in OPERATIONS.splitlines() if line.startswith("| `HARRIER_")]
    assert found == rows(), "put this table into docs/operations.md:\n" + "\n".join(rows())


def test_every_setting_explains_itself() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    "document", ["README.md", "docs/operations.md", ".env.example", "docker-compose.yml"]
)
def test_only_settings_that_exist_are_named(document: str) -> None:
    others = {"HARRIER_KEY", "HARRIER_PUBLISH", "HARRIER_BOOTSTRAP_KEY"}
    known = {f"HARRIER_{name.upper()}" for name in Settings.model_fields} | others
    named = set(re.findall(r"\bHARRIER_[A-Z_]+\b", (ROOT / document).read_text(encoding="utf-8")))
    assert named - known == set()


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in folder.glob("[0-9]*.md")}
    assert set(re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index)) == pages
