"""Plans: which ways to serve a model are measured, and which of them wins. Plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from detection.inference.serving import Precision, ServingShape

ACCELERATOR_BATCHES = (1, 8, 32)
CPU_BATCH = 4
"""With all cores on one batch; larger ones gain nothing on a CPU, and wait for longer."""
DEFAULT_AP_DROP = 0.005
AS_FAST = 0.98
"""What reaches this share of the most pictures a second is as fast: two measurements differ by as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWish:
    """What serving must reach; what is None is not asked for."""

    p95_ms: float | None = None
    """Of a picture, with as many under way as the shape takes, milliseconds."""
    rps: float | None = None
    """Pictures a second."""
    max_ap_drop: float = DEFAULT_AP_DROP
    """How much less AP than the reference, at the most; a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One way to serve, measured."""

    shape: ServingShape
    pictures_per_s: float
    """With as many pictures under way as the shape takes."""
    p50_ms: float
    """Of a picture then, from its bytes to its boxes."""
    p95_ms: float
    alone_p50_ms: float
    """Of a picture that is alone, and has all cores."""
    alone_p95_ms: float
    ap: float | None
    """None where the pictures have no boxes to be found."""
    ap_drop: float | None
    """Of the reference's AP; negative when there is more."""
    same_boxes: float
    """The share of the confident boxes that are those of the reference."""
    agrees: bool
    """Whether that is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a plan comes to."""

    winner: PlanRow | None
    closest: PlanRow | None
    """What came closest, when there is no winner."""
    unmet: tuple[str, ...] = ()
    """A sentence for each wish that nothing reaches."""


def candidate_shapes(
    executors: Iterable[tuple[str, Precision]],
    *,
    on_cpu: bool,
    cores: int,
    side_by_side: Callable[[str], bool],
) -> list[ServingShape]:
    """Return the ways to serve that are worth measuring on a device.

    Args:
        executors: backends with the precisions that each has there.
        on_cpu: single pictures side by side, and all cores for one; else batches, one by one.
        cores: that the process may use.
        side_by_side: whether a backend's calls may run beside each other.
    """
    return [
        ServingShape(backend, precision, streams, threads, batch_size)
        for backend, precision in executors
        for streams, threads, batch_size in _layouts(cores, on_cpu, side_by_side(backend))
    ]


def _layouts(cores: int, on_cpu: bool, side_by_side: bool) -> list[tuple[int, int, int]]:
    """Return streams, threads of each, and batch size."""
    if not on_cpu:
        return [(1, cores, size) for size in ACCELERATOR_BATCHES]
    together = [(1, cores, 1), (1, cores, CPU_BATCH)]
    if cores == 1 or not side_by_side:
        return together
    pairs = [(cores // 2, 2, 1)] if cores >= 4 else []
    return [(cores, 1, 1), *pairs, *together]


def judge(rows: Sequence[PlanRow], wish: PlanWish) -> Verdict:
    """Return the row that serves the most pictures a second, of those that are right and reach the wishes.

    Rows that are as fast are told apart by their p95.

    Args:
        rows: at least that of the reference.
    """
    right = [row for row in rows if row.agrees and (row.ap_drop or 0.0) <= wish.max_ap_drop]
    reaching = [row for row in right if _reaches(row, wish)]
    if reaching:
        most = max(row.pictures_per_s for row in reaching)
        as_fast = [row for row in reaching if row.pictures_per_s >= AS_FAST * most]
        return Verdict(winner=min(as_fast, key=lambda row: row.p95_ms), closest=None)
    if not right:
        return Verdict(winner=None, closest=None, unmet=("nothing answers as the reference does",))
    return Verdict(
        winner=None, closest=min(right, key=lambda row: _shortfall(row, wish)), unmet=_unmet(right, wish)
    )


def why_not(row: PlanRow, wish: PlanWish, winner: PlanRow | None) -> str | None:
    """Return why a row is not the best, for people; None for the best.

    Args:
        winner: of all rows; None when nothing reaches the wishes.
    """
    if row is winner:
        return None
    if not row.agrees:
        return _difference(row)
    missed = _missed(row, wish)
    if missed:
        return "; ".join(missed)
    if winner is not None and row.pictures_per_s < AS_FAST * winner.pictures_per_s:
        return "fewer pictures a second"
    return "no faster than the best, and its p95 is longer"


def _difference(row: PlanRow) -> str:
    if row.same_boxes == 1.0:
        return "too few boxes were found to tell whether it finds what the reference finds"
    # rounded down: one box of thousands is a difference, too
    same = math.floor(1000 * row.same_boxes) / 10
    return f"differs from the reference: {same:.1f}% of the boxes are the same"


def _missed(row: PlanRow, wish: PlanWish) -> list[str]:
    missed = []
    if row.ap_drop is not None and row.ap_drop > wish.max_ap_drop:
        missed.append(f"loses {row.ap_drop:.4f} AP, more than {wish.max_ap_drop:g}")
    if wish.p95_ms is not None and row.p95_ms > wish.p95_ms:
        missed.append(f"p95 above {wish.p95_ms:g} ms")
    if wish.rps is not None and row.pictures_per_s < wish.rps:
        missed.append(f"below {wish.rps:g} pictures a second")
    return missed


def _reaches(row: PlanRow, wish: PlanWish) -> bool:
    in_time = wish.p95_ms is None or row.p95_ms <= wish.p95_ms
    return in_time and (wish.rps is None or row.pictures_per_s >= wish.rps)


def _shortfall(row: PlanRow, wish: PlanWish) -> float:
    """Return by which factor a row misses the wish that it misses most."""
    too_slow = 0.0 if wish.p95_ms is None else row.p95_ms / wish.p95_ms
    too_few = 0.0 if wish.rps is None else wish.rps / max(row.pictures_per_s, 1e-9)
    return max(too_slow, too_few)


def _unmet(rows: Sequence[PlanRow], wish: PlanWish) -> tuple[str, ...]:
    unmet = []
    quickest = min(rows, key=lambda row: row.p95_ms)
    if wish.p95_ms is not None and quickest.p95_ms > wish.p95_ms:
        unmet.append(
            f"p95_ms: no way to serve stays within {wish.p95_ms:g} ms; {quickest.shape} needs"
            f" {quickest.p95_ms:.1f} ms"
        )
    fastest = max(rows, key=lambda row: row.pictures_per_s)
    if wish.rps is not None and fastest.pictures_per_s < wish.rps:
        unmet.append(
            f"rps: no way to serve reaches {wish.rps:g} pictures a second; {fastest.shape} reaches"
            f" {fastest.pictures_per_s:.1f}"
        )
    return tuple(unmet) or ("p95_ms and rps: each is reached, but not both by one way to serve",)


def executors_of(precisions: Mapping[str, Sequence[Precision]]) -> list[tuple[str, Precision]]:
    """Return backends with their precisions as pairs, in their order."""
    return [(backend, precision) for backend, found in precisions.items() for precision in found]
