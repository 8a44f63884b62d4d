"""Ranks that wait for each other, decide together and fail together, tried with real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detection.errors import ConfigError, Fault, NoSpaceError, RankError
from detection.losses.normaliser import global_mean
from detection.training.distributed import Ranks, rank_zero_first
from tests.ranks import alone, on_ranks


def numbers(ranks: Ranks) -> list[object]:
    ranks.wait()
    own = torch.tensor([1.0, 10.0]) * ranks.rank
    mean = ranks.mean(own)
    return [
        ranks.gather(ranks.rank * 7),
        mean.tolist(),
        own.tolist(),
        ranks.together(lambda: 5 + ranks.rank),
        (ranks.is_first, ranks.is_alone),
    ]


def test_numbers_of_all_ranks_come_together() -> None:
    first, second, third = on_ranks(numbers, world=3)
    assert first == [[0, 7, 14], [1.0, 10.0], [0.0, 0.0], 5, (True, False)]
    assert second == [[0, 7, 14], [1.0, 10.0], [1.0, 10.0], 5, (False, False)]
    assert third[2] == [2.0, 20.0]


def test_alone_nobody_waits() -> None:
    assert numbers(alone()) == [[0], [0.0, 0.0], [0.0, 0.0], 5, (True, True)]
    with pytest.raises(ZeroDivisionError):
        alone().together(lambda: 1 // 0)


def normalisers(ranks: Ranks) -> list[float]:
    """Divide what each rank has found: 3 and 5, nothing at all, and one thing on one of them."""
    found = torch.tensor([3.0 + 2 * ranks.rank, 0, ranks.rank])
    return global_mean(found).tolist()


def test_a_loss_is_divided_by_what_all_ranks_have() -> None:
    assert on_ranks(normalisers) == [[4.0, 0.5, 0.5]] * 2


def shared_errors(ranks: Ranks) -> list[str]:
    """Let the ranks fail in turn, each with what it may fail with, and go on afterwards."""

    def fail(failing: int, error: Exception) -> int:
        if ranks.rank == failing:
            raise error
        return 1

    said = []
    for failing, error in (
        (0, NoSpaceError(2_000, 1_000)),
        (1, ConfigError([Fault("/a", "is wrong")])),
        (1, KeyError("é" * 3)),
    ):
        try:
            ranks.together(lambda failing=failing, error=error: fail(failing, error))  # type: ignore[misc]
        except Exception as caught:  # noqa: BLE001 - compared by the test
            said.append(f"{type(caught).__name__}: {caught}")
    return [*said, str(ranks.gather(1))]


def test_what_one_rank_raises_all_raise_and_nobody_hangs() -> None:
    first, second = on_ranks(shared_errors)
    other = RankError(1, "KeyError: 'ééé'")
    space = f"NoSpaceError: {NoSpaceError(2_000, 1_000)}"
    assert first == [
        space,
        "ConfigError: /a: is wrong",
        f"RankError: {other}",
        "[1, 1]",
    ]
    assert second == [space, "ConfigError: /a: is wrong", "KeyError: 'ééé'", "[1, 1]"]


def going_first(ranks: Ranks, folder: Path, first_fails: bool) -> list[str]:
    """Note who has been here before."""
    lines: list[str] = []
    try:
        with rank_zero_first(ranks, log=lines.append):
            lines += sorted(path.name for path in folder.iterdir())
            (folder / str(ranks.rank)).touch()
            if first_fails and ranks.is_first:
                raise OSError("the first rank fails")
    except OSError as error:
        lines.append(str(error))
    ranks.wait()
    return lines


@pytest.mark.parametrize("first_fails", [False, True], ids=["well", "failing"])
def test_the_first_rank_goes_first_and_lets_the_others_in(tmp_path: Path, first_fails: bool) -> None:
    first, *others = on_ranks(going_first, tmp_path, first_fails, world=3)
    assert first == ["the first rank fails"] * first_fails
    for rank, lines in enumerate(others, start=1):
        assert lines[0] == f"rank {rank} waits until rank 0 has gone first"
        assert lines[1] == "0"
    assert going_first(alone(), tmp_path, first_fails=False) == ["0", "1", "2"]
