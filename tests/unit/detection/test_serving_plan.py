"""Which ways to serve are measured, and which of them wins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detection.errors import UnknownNameError
from detection.inference.plan import PlanRow, PlanWish, candidate_shapes, executors_of, judge, why_not
from detection.inference.serving import Precision, ServingShape, executor_name, read_executor

SHAPE = ServingShape("eager", Precision.FP32, streams=1, threads=2, batch_size=1)
ROW = PlanRow(
    shape=SHAPE,
    pictures_per_s=20.0,
    p50_ms=45.0,
    p95_ms=50.0,
    alone_p50_ms=45.0,
    alone_p95_ms=50.0,
    ap=0.3,
    ap_drop=0.0,
    same_boxes=1.0,
    agrees=True,
)


def row(backend: str, pictures_per_s: float, p95_ms: float, **changes: object) -> PlanRow:
    values = {"pictures_per_s": pictures_per_s, "p95_ms": p95_ms, **changes}
    return replace(ROW, shape=replace(SHAPE, backend=backend), **values)  # type: ignore[arg-type]


ROWS = [ROW, row("fast", 100.0, 20.0), row("quick", 60.0, 10.0)]


def winner(rows: list[PlanRow], **wish: float) -> str | None:
    found = judge(rows, PlanWish(**wish)).winner
    return None if found is None else found.shape.backend


def test_the_most_pictures_a_second_win_within_the_wishes() -> None:
    assert winner(ROWS) == "fast"
    assert winner(ROWS, p95_ms=15.0) == "quick"
    assert winner(ROWS, rps=60.0, p95_ms=10.0) == "quick"
    assert winner(ROWS, rps=61.0) == "fast"


def test_of_those_that_are_as_fast_the_quicker_one_wins() -> None:
    assert winner([*ROWS, row("as fast", 99.0, 12.0)]) == "as fast"
    assert winner([*ROWS, row("less fast", 90.0, 12.0)]) == "fast"


def test_what_is_wrong_never_wins() -> None:
    assert winner([*ROWS, row("other boxes", 300.0, 5.0, agrees=False)]) == "fast"
    worse = row("worse", 300.0, 5.0, ap_drop=0.006)
    assert winner([*ROWS, worse]) == "fast"
    assert winner([*ROWS, worse], max_ap_drop=0.01) == "worse"
    assert winner([*ROWS, row("better", 300.0, 5.0, ap_drop=-0.01)]) == "better"
    assert winner([*ROWS, row("unknown", 300.0, 5.0, ap=None, ap_drop=None)]) == "unknown"


def test_who_does_not_win_is_told_why() -> None:
    wish = PlanWish(p95_ms=40.0, rps=30.0)
    rows = [
        *ROWS,
        row("as fast", 99.0, 21.0),
        row("worse", 300.0, 5.0, ap_drop=0.006),
        row("other boxes", 300.0, 5.0, agrees=False, same_boxes=0.9),
    ]
    best = judge(rows, wish).winner
    assert {each.shape.backend: why_not(each, wish, best) for each in rows} == {
        "eager": "p95 above 40 ms; below 30 pictures a second",
        "fast": None,
        "quick": "fewer pictures a second",
        "as fast": "no faster than the best, and its p95 is longer",
        "worse": "loses 0.0060 AP, more than 0.005",
        "other boxes": "differs from the reference: 90.0% of the boxes are the same",
    }


@pytest.mark.parametrize(
    ("same", "told"),
    [
        (1.0, "too few boxes were found to tell whether it finds what the reference finds"),
        (2999 / 3000, "differs from the reference: 99.9% of the boxes are the same"),
        (0.0, "differs from the reference: 0.0% of the boxes are the same"),
    ],
)
def test_who_is_not_known_to_be_right_is_told_what_is_known(same: float, told: str) -> None:
    unsure = row("other", 300.0, 5.0, agrees=False, same_boxes=same)
    assert why_not(unsure, PlanWish(), ROW) == told


def test_where_nothing_wins_each_is_told_which_wish_it_misses() -> None:
    wish = PlanWish(p95_ms=15.0, rps=80.0)
    assert [why_not(each, wish, judge(ROWS, wish).winner) for each in ROWS] == [
        "p95 above 15 ms; below 80 pictures a second",
        "p95 above 15 ms",
        "below 80 pictures a second",
    ]


def test_a_wish_that_nothing_reaches_is_named_with_what_comes_closest() -> None:
    verdict = judge(ROWS, PlanWish(p95_ms=5.0))
    assert verdict.winner is None
    assert verdict.closest is ROWS[2]
    assert verdict.unmet == (
        "p95_ms: no way to serve stays within 5 ms; quick, 1 x 2 threads, batches of 1 needs 10.0 ms",
    )
    verdict = judge(ROWS, PlanWish(rps=200.0, p95_ms=5.0))
    assert [each.partition(":")[0] for each in verdict.unmet] == ["p95_ms", "rps"]
    assert "fast, 1 x 2 threads, batches of 1 reaches 100.0" in verdict.unmet[1]


def test_wishes_that_are_reached_apart_only_are_named_together() -> None:
    verdict = judge(ROWS, PlanWish(rps=90.0, p95_ms=15.0))
    assert verdict.winner is None
    assert verdict.closest is ROWS[1]
    assert verdict.unmet == ("p95_ms and rps: each is reached, but not both by one way to serve",)


def test_nothing_right_is_nothing() -> None:
    verdict = judge([row("other boxes", 300.0, 5.0, agrees=False)], PlanWish())
    assert (verdict.winner, verdict.closest) == (None, None)
    assert verdict.unmet == ("nothing answers as the reference does",)


EXECUTORS = executors_of({"eager": [Precision.FP32], "openvino": [Precision.FP32, Precision.BF16]})


def layouts(backend: str, *, cores: int, on_cpu: bool = True) -> list[tuple[int, int, int]]:
    shapes = candidate_shapes(
        EXECUTORS, on_cpu=on_cpu, cores=cores, side_by_side=lambda name: name == "openvino"
    )
    found = [each for each in shapes if each.executor == backend]
    return [(each.streams, each.threads, each.batch_size) for each in found]


def test_on_a_cpu_streams_side_by_side_and_all_cores_for_one_are_measured() -> None:
    assert layouts("openvino:bf16", cores=2) == [(2, 1, 1), (1, 2, 1), (1, 2, 4)]
    assert layouts("openvino", cores=8) == [(8, 1, 1), (4, 2, 1), (1, 8, 1), (1, 8, 4)]
    assert layouts("eager", cores=2) == [(1, 2, 1), (1, 2, 4)]
    assert layouts("openvino", cores=1) == [(1, 1, 1), (1, 1, 4)]


def test_on_an_accelerator_batches_are_measured() -> None:
    assert layouts("eager", cores=8, on_cpu=False) == [(1, 8, 1), (1, 8, 8), (1, 8, 32)]


@pytest.mark.parametrize("name", ["openvino", "openvino:bf16"])
def test_a_backend_with_its_precision_has_one_name(name: str) -> None:
    assert executor_name(*read_executor(name)) == name


def test_an_unknown_precision_is_named_with_those_there_are() -> None:
    assert read_executor("openvino") == ("openvino", Precision.FP32)
    assert read_executor("openvino:fp32") == ("openvino", Precision.FP32)
    for name in ("int4", "", "bf16:2"):
        complaint = f"unknown precision '{name}'; there are: fp32, bf16, fp16"
        with pytest.raises(UnknownNameError, match=complaint):
            read_executor(f"openvino:{name}")
