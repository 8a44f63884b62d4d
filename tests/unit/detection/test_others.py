"""What other processes take while something is measured is counted, and said when it is much."""

from __future__ import annotations

from pathlib import Path

import pytest

from detection.others import TICKS_S, Others, in_words


class Machine:
    """The file in which the kernel counts, and what of it is ours."""

    def __init__(self, folder: Path) -> None:
        self.file, self.own_s = folder / "stat", 0.0
        self.write()

    def write(self, **seconds: float) -> None:
        columns = (
            "user",
            "nice",
            "system",
            "idle",
            "iowait",
            "irq",
            "softirq",
            "steal",
            "guest",
            "guest_nice",
        )
        ticks = [str(round((100 + seconds.get(name, 0)) * TICKS_S)) for name in columns]
        self.file.write_text(f"cpu  {' '.join(ticks)}\ncpu0 1 2 3 4\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_others_did_is_all_that_was_busy_but_our_own(machine: Machine) -> None:
    others = Others(machine.file, lambda: machine.own_s)
    assert others.share() is None, "no time has passed"
    machine.own_s = 8.0
    machine.write(user=7, nice=1, system=2, softirq=1, steal=1, idle=6, iowait=2, guest=5)
    assert others.share() == pytest.approx(4 / 20)


def test_counts_that_do_not_quite_agree_are_no_share_below_nothing(machine: Machine) -> None:
    others = Others(machine.file, lambda: machine.own_s)
    machine.own_s = 1.1
    machine.write(user=1, idle=1)
    assert others.share() == 0.0


def test_this_machine_tells(tmp_path: Path) -> None:
    others = Others()
    share = None
    while share is None:
        share = others.share()
    assert 0.0 <= share <= 1.0


@pytest.mark.parametrize(("share", "words"), [(None, None), (0.1, None), (0.434, "used 43% of")])
def test_it_is_said_when_it_is_more_than_a_tenth(share: float | None, words: str | None) -> None:
    said = in_words(share)
    assert said is None if words is None else words in (said or "")
