"""Paths are found by their ends, then by nearness; namesakes cost no search of them all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection.data import path_index
from detection.data.path_index import PathIndex
from detection.data.records import Split
from detection.data.splits import may_belong, split_of_folders

PARTS = st.lists(st.sampled_from(["a", "A", "b", "a0", "train", "Val"]), min_size=1, max_size=4)
PATHS = PARTS.map("/".join)


def searched(names: list[str], parts: list[str], near: str, split: Split | None) -> str | None:
    """Look at every name: what the index must find without doing so."""
    ends = {name: agreement(parts[::-1], name.split("/")[::-1]) for name in names}
    longest = max(ends.values(), default=0)
    if not longest:
        return None
    split = split or split_of_folders("/".join([*parts, ""]))
    best = [name for name in names if ends[name] == longest]
    best = [name for name in best if split_of_folders(name) is split] or best
    if longest < len(parts) and (len(best) > 1 or not may_belong(best[0], split)):
        return None
    folder = near.split("/")[:-1]
    return min(best, key=lambda name: (-agreement(folder, name.split("/")[:-1]), len(name), name))


def agreement(first: list[str], second: list[str]) -> int:
    """Count the equal parts at the beginning."""
    equal = [one.casefold() == other.casefold() for one, other in zip(first, second, strict=False)]
    return [*equal, False].index(False)


@given(st.sets(PATHS, max_size=12), PARTS, PATHS, st.sampled_from([None, *Split]))
def test_what_is_found_is_what_a_search_of_all_names_finds(
    names: set[str], parts: list[str], near: str, split: Split | None
) -> None:
    index = PathIndex(sorted(names))

    found = [index.best_match(parts, near=near, split=split) for _ in range(2)]

    assert found == 2 * [searched(sorted(names), parts, near, split)]


def test_namesakes_are_looked_at_once_however_often_one_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def split_of(name: str) -> Split | None:
        looks.append(name)
        return split_of_folders(name)

    monkeypatch.setattr(path_index, "split_of_folders", split_of)
    folders = [f"camera/{number:03}" for number in range(300)]
    index = PathIndex(f"{folder}/1.jpg" for folder in folders)

    for folder in folders:
        found = index.best_match(["1.jpg"], near=f"{folder}/labels.json", split=None)
        assert found == f"{folder}/1.jpg"

    assert len(looks) < 3 * len(folders)
