"""The files around the code: licence, locks, make, containers. What they promise must be so."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
APACHE_2_0 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""sha256 of the licence's text as the Apache Software Foundation publishes it."""
LOCKS = ("requirements.lock", "requirements-dev.lock")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


def locked(name: str) -> list[Requirement]:
    """The requirements of a lock, without their hashes."""
    joined = re.sub(r"\s*\\\n\s*--hash=\S+", "", read(name))
    return [Requirement(line.rstrip(" \\")) for line in joined.splitlines() if line.strip()]


def test_the_licence_is_apache_2_0_word_for_word() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_0
    assert project()["project"]["license"] == "Apache-2.0"


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_requirement_is_pinned_and_hashed(name: str) -> None:
    blocks = re.split(r"\n(?=\S)", read(name).strip())
    bad = [
        block
        for block in blocks
        if not re.match(r"[a-z0-9._-]+==\S+", block) or "--hash=sha256:" not in block
    ]
    assert bad == []


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_an_index(name: str) -> None:
    assert re.findall(r"https?:|file:|--index-url|--extra-index-url|--find-links| @ ", read(name)) == []


def test_the_locks_hold_what_the_project_asks_for() -> None:
    table = project()
    extras = dict(table["project"]["optional-dependencies"])
    tested_only = extras.pop("openvino")  # 180 MB that few want: docs/decisions/0007-openvino.md
    wanted = {
        "requirements.lock": [*table["project"]["dependencies"], *itertools.chain(*extras.values())],
        "requirements-dev.lock": [*table["dependency-groups"]["dev"], *tested_only],
    }
    for name, requirements in wanted.items():
        pins = {canonicalize_name(pin.name): pin for pin in applicable(name)}
        for requirement in map(Requirement, requirements):
            pin = pins[canonicalize_name(requirement.name)]
            version = next(iter(pin.specifier)).version
            assert requirement.specifier.contains(version, prereleases=True), f"{name}: {pin}"


def applicable(name: str) -> list[Requirement]:
    return [pin for pin in locked(name) if pin.marker is None or pin.marker.evaluate()]


def test_the_locks_agree() -> None:
    first, second = ({pin.name: str(pin.specifier) for pin in applicable(name)} for name in LOCKS)
    assert {
        name: (first[name], second[name])
        for name in first.keys() & second.keys()
        if first[name] != second[name]
    } == {}


@pytest.mark.parametrize("name", LOCKS)
def test_what_is_tested_is_what_is_locked(name: str) -> None:
    installed = {pin.name: metadata.version(pin.name) for pin in applicable(name)}
    assert installed == {pin.name: next(iter(pin.specifier)).version for pin in applicable(name)}


@pytest.mark.parametrize("module", ["app.cli", "app.alive"])
def test_the_command_line_and_health_checks_load_no_torch(module: str) -> None:
    heavy = ("torch", "cv2", "onnxruntime")
    code = (
        f"import sys, {module}; sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def make(*arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_make_help_lists_every_command() -> None:
    listed = re.findall(r"^make (\S+)", make("help"), re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert phony is not None
    assert {*listed, "install", "install-dev"} == set(phony[1].split())


@pytest.mark.parametrize(
    ("target", "last"),
    [("serve", "harrier serve"), ("demo", "harrier demo"), ("test", "pytest -n"), ("lint", "deptry")],
)
def test_each_command_installs_what_it_needs_first(target: str, last: str) -> None:
    steps = make("--dry-run", target).splitlines()
    assert steps[0].startswith("python3 tools/install.py requirements.lock")
    assert last in steps[-1]


def test_another_python_may_be_chosen() -> None:
    assert make("--dry-run", "PYTHON=python3.99", "serve").startswith("python3.99 tools/install.py")


def test_documents_name_only_commands_that_exist() -> None:
    known = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    documents = [
        path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    ]
    named = {(name, target) for name in documents for target in re.findall(r"`make ([a-z-]+)", read(name))}
    assert {entry for entry in named if entry[1] not in known} == set()


def test_ci_runs_lint_and_test() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert re.findall(r"^step (make \w+)", read(".ci/run"), re.MULTILINE) == ["make lint", "make test"]


def test_coverage_counts_child_processes() -> None:
    settings = project()["tool"]["coverage"]["run"]
    assert settings["patch"] == ["subprocess", "_exit", "execv"]
    assert settings["source"] == ["app", "worker", "detection"]
    assert "--cov-fail-under=90" in read("Makefile")


def test_the_changelog_has_room_for_the_next_release() -> None:
    assert re.search(r"^## \[Unreleased\]$", read("CHANGELOG.md"), re.MULTILINE)
