"""Whose turn it is: cases by hand, and days of random jobs against the promises that the rule makes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.jobs.line import Answer, Begins, Elsewhere, Line, Waits
from detection.device_choice import read_choice


def answers(
    jobs: str,
    *,
    accelerators: str = "012",
    taken: Sequence[str] = (),
    cpu: Sequence[str] = (),
    cpu_jobs: int = 1,
) -> dict[str, Answer]:
    """Return what each of the `jobs` hears, written as `a:0,1 b:auto`, oldest first."""
    running = dict(each.split(":")[::-1] for each in taken)
    line = Line(accelerators, running, cpu=cpu, cpu_jobs=cpu_jobs)
    asked = [job.split(":") for job in jobs.split()]
    return {name: line.join(name, read_choice(spec, ())) for name, spec in asked}


def test_each_gets_what_is_free() -> None:
    assert answers("a:1 b:auto c:auto d:cpu") == {
        "a": Begins(("1",)),
        "b": Begins(("0",)),
        "c": Begins(("2",)),
        "d": Begins(("cpu",)),
    }


def test_a_job_whose_device_is_busy_holds_nobody_up_who_needs_another() -> None:
    heard = answers("a:0 b:1 c:auto", taken=["r:0"])
    assert heard == {
        "a": Waits("0", "r", running=True),
        "b": Begins(("1",)),
        "c": Begins(("2",)),
    }


def test_what_is_free_already_is_kept_for_a_job_that_needs_several() -> None:
    heard = answers("a:0,1 b:0 c:auto d:1", taken=["r:1"])
    assert heard == {
        "a": Waits("1", "r", running=True),
        "b": Waits("0", "a", running=False),
        "c": Begins(("2",)),
        "d": Waits("1", "a", running=False),
    }


def test_of_several_reasons_the_one_is_told_that_is_removed_last() -> None:
    assert answers("a:1 b:0,1", taken=["r:0", "s:1"])["b"] == Waits("1", "a", running=False)


def test_auto_waits_for_an_accelerator_and_in_order() -> None:
    heard = answers("a:auto b:auto", accelerators="0", taken=["r:0"])
    assert heard == {"a": Waits("0", "r", running=True), "b": Waits("auto", "a", running=False)}


def test_auto_is_told_of_the_shortest_line() -> None:
    heard = answers("a:0 b:auto", accelerators="01", taken=["r:0", "s:1"])
    assert heard["b"] == Waits("1", "s", running=True)


def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    heard = answers("a:auto b:cpu c:auto", accelerators="", cpu=["r"], cpu_jobs=2)
    assert heard == {
        "a": Begins(("cpu",)),
        "b": Waits("cpu", "a", running=False),
        "c": Waits("cpu", "b", running=False),
    }


@pytest.mark.parametrize("spec", ["3", "0,3", "17"])
def test_what_is_not_here_is_waited_for_elsewhere_and_takes_no_place(spec: str) -> None:
    assert answers(f"a:{spec} b:0") == {"a": Elsewhere(), "b": Begins(("0",))}


SPECS = st.sampled_from(["auto", "cpu", "0", "1", "2", "0,1", "1,2", "2,0", "0,1,2"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(SPECS, st.integers(1, 4)), min_size=1, max_size=25), st.integers(1, 2))
def test_nobody_shares_nobody_is_overtaken_on_a_device_and_everybody_begins(
    jobs: list[tuple[str, int]], cpu_jobs: int
) -> None:
    """One job comes in each step of time and runs for some; look at every step as a worker would."""
    waiting: list[tuple[str, str]] = []
    running: dict[str, tuple[tuple[str, ...], int]] = {}
    begun: list[str] = []
    time = 0
    while len(begun) < len(jobs) or running:
        running = {job: (devices, end) for job, (devices, end) in running.items() if end > time}
        if time < len(jobs):
            waiting.append((f"j{time}", jobs[time][0]))
        taken = {device: job for job, (devices, _) in running.items() for device in devices}
        on_cpu = [job for job, (devices, _) in running.items() if devices == ("cpu",)]
        line = Line(
            "012", {each: taken[each] for each in "012" if each in taken}, cpu=on_cpu, cpu_jobs=cpu_jobs
        )
        held: set[str] = set()
        for job, spec in list(waiting):
            answer = line.join(job, read_choice(spec, ()))
            if isinstance(answer, Begins):
                accelerators = set(answer.devices) - {"cpu"}
                assert not accelerators & (set(taken) | held), "shared, or taken from an older job"
                held |= accelerators
                waiting.remove((job, spec))
                begun.append(job)
                running[job] = (answer.devices, time + jobs[int(job[1:])][1])
            else:
                held |= set(spec.split(",")) - {"auto", "cpu"}
        assert sum(devices == ("cpu",) for devices, _ in running.values()) <= cpu_jobs
        time += 1
        assert time <= len(jobs) + sum(length for _, length in jobs) + 1, f"{waiting} wait for ever"
    assert sorted(begun) == sorted(f"j{index}" for index in range(len(jobs)))
