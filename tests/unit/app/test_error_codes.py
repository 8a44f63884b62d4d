"""Every code that the source can say is explained in docs/errors.md, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import app.main  # noqa: F401 - with it every error there is
from app.errors import all_errors
from detection.data.archive import ArchiveFault
from detection.data.finding_log import FindingCode
from worker.failures import CODES

ROOT = Path(__file__).resolve().parents[3]


def chapters() -> dict[str, set[str]]:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {
        title: set(re.findall(r"^\|(?: \d+ \|)? `([a-z_]+)` \|", body, flags=re.MULTILINE))
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


def failures_in_source() -> Iterator[str]:
    """Yield the first argument of every `Failure("…", …)`, and the fallback of worker/failures.py."""
    for package in ("app", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("Failure"):
                    continue
                if node.args and isinstance(node.args[0], ast.Constant):
                    yield str(node.args[0].value)
    yield "detection_error"


def test_every_answer_is_explained() -> None:
    assert chapters()["Answers"] == {kind.code for kind in all_errors()}


def test_every_failure_is_explained() -> None:
    codes = {fault.value for fault in ArchiveFault} | set(CODES.values()) | set(failures_in_source())
    assert chapters()["Failures of jobs"] == codes


def test_every_finding_is_explained() -> None:
    assert chapters()["Findings"] == {code.value for code in FindingCode}


def test_a_code_has_one_status() -> None:
    found: dict[str, set[int]] = {}
    for kind in all_errors():
        found.setdefault(kind.code, set()).add(kind.status)
    assert {code: statuses for code, statuses in found.items() if len(statuses) > 1} == {}


def test_every_error_says_what_it_is() -> None:
    for kind in all_errors():
        assert re.fullmatch(r"[a-z_]+", kind.code), kind
        assert 400 <= kind.status < 600, kind
        assert kind.title, kind
