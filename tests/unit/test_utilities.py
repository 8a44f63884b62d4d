"""The page of utilities names functions that exist and say what they do."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training-utilities.md"
NAMES = sorted(set(re.findall(r"`(detection(?:\.\w+)+)`", PAGE.read_text(encoding="utf-8"))))


def found(name: str) -> Any:
    """Return what a dotted name stands for: a function, a class, or a method."""
    module, _, rest = name.rpartition(".")
    while True:
        try:
            thing: Any = import_module(module)
        except ModuleNotFoundError:
            module, _, outer = module.rpartition(".")
            rest = f"{outer}.{rest}"
            continue
        for part in rest.split("."):
            thing = getattr(thing, part)
        return thing


def test_the_page_names_functions() -> None:
    assert len(NAMES) > 20


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_names_exists_and_is_described(name: str) -> None:
    assert found(name).__doc__, f"{name} does not say what it does"
