"""How fast `/detect` is beside the bound and beside other servers: YOLOX-nano with COCO weights.

`make bench-peers` first; `make bench PYTEST_ARGS="-k serving"` is everything about serving.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.comparison import Claim, claim, ratios
from tests.benchmarks.conftest import Bench
from tests.benchmarks.field import (
    BOUND,
    BOUND_ONNX,
    FULL,
    HARRIER,
    HARRIER_ONNX,
    MANY,
    ROUNDS,
    SECONDS,
    Field,
    Rows,
    measure_round,
    playing_field,
)
from tests.benchmarks.peers.servers import EAGER, STREAMS
from tests.benchmarks.pictures import damaged
from tests.benchmarks.sending import send

pytestmark = [pytest.mark.benchmark, pytest.mark.reference]

RESETTING = 4


def say(name: str) -> None:
    """Tell at once what is being started: it takes minutes in all."""
    print(f"  starting {name}", flush=True)


@pytest.fixture(scope="module")
def playing(
    reference: Path, coco_pictures: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("field")
    with playing_field(reference, coco_pictures, folder, say) as ready:
        yield ready


def test_serving_speed(bench: Bench, playing: Field) -> None:
    """Throughput with 16 clients and p50 with one, round by round, of everything in turn."""
    rows = {name: Rows() for name in (*playing.bounds, FULL, *playing.servers)}
    costs = []
    for number in range(ROUNDS):
        print(f"  round {number + 1} of {ROUNDS}", flush=True)
        costs += measure_round(playing, rows)
    bench.keep(
        "setting",
        rounds=ROUNDS,
        seconds=SECONDS,
        clients=MANY,
        executor=playing.executor,
        graph_sha256=playing.graph_sha256,
        client_cpu_ms=round(statistics.median(costs), 4),
    )
    bench.keep("missing", **playing.missing)
    for name in (*playing.bounds, FULL, *playing.servers):
        bench.keep(name, **vars(rows[name]))
    bench.judge(*claims(rows, playing))


def claims(rows: dict[str, Rows], playing: Field) -> list[Claim]:
    """Return what the figures say about each promise."""
    same, own = rows[HARRIER_ONNX], rows[HARRIER]
    found = []
    for ours, bound, name in (
        (own, rows[BOUND], f"Harrier ({playing.executor})"),
        (same, rows[BOUND_ONNX], HARRIER_ONNX),
    ):
        found += [
            claim(f"{name}: throughput / bound", ">=", 0.9, ratios(ours.per_s, bound.per_s)),
            claim(f"{name}: p50 / in-process", "<=", 1.2, ratios(ours.p50_one_ms, bound.p50_one_ms)),
        ]
    note = "without " + ", ".join(playing.missing) if playing.missing else ""
    fastest, quickest = best(rows, playing.peers())
    for ours, name, least, most in ((same, HARRIER_ONNX, 1.0, 1.05), (own, HARRIER, 1.1, 0.9)):
        per_s, p50 = f"{name}: throughput / {fastest}", f"{name}: p50 / {quickest}"
        found += [
            claim(per_s, ">=", least, ratios(ours.per_s, rows[fastest].per_s) if fastest else [], note),
            claim(
                p50, "<=", most, ratios(ours.p50_one_ms, rows[quickest].p50_one_ms) if quickest else [], note
            ),
        ]
    eager = rows[EAGER.name].per_s if EAGER.name in rows else []
    found.append(
        claim(f"Harrier: throughput / {EAGER.title}", ">=", 4.0, ratios(own.per_s, eager) if eager else [])
    )
    return found


def best(rows: dict[str, Rows], peers: list[str]) -> tuple[str, str]:
    """Return the peer, in one of its settings, with the best median throughput, and that of p50."""
    if not peers:
        return "", ""
    return (
        max(peers, key=lambda name: statistics.median(rows[name].per_s)),
        min(peers, key=lambda name: statistics.median(rows[name].p50_one_ms)),
    )


def test_serving_beside_misbehaving_clients(bench: Bench, playing: Field, tmp_path: Path) -> None:
    """Sixteen good clients alone, then beside one with damaged pictures and four that reset connections."""
    spoiled = tmp_path / "damaged.jpg"
    spoiled.write_bytes(damaged(Path(playing.pictures[0]).read_bytes()))
    names = [HARRIER, *(name for name in playing.peers() if name.endswith(STREAMS))]
    for _ in range(ROUNDS):
        for name in [each for each in names if each in playing.servers]:
            measure_beside(bench, playing, name, str(spoiled))
    bench.keep("missing", **playing.missing)
    bench.judge(claim("Harrier: throughput kept", ">=", 0.85, bench.figures.get(HARRIER, {}).get("kept", [])))


def measure_beside(bench: Bench, playing: Field, name: str, spoiled: str) -> None:
    """Measure one server once, alone and beside the clients that misbehave."""
    with playing.turn(name) as server:
        alone = send(server, playing.pictures, clients=MANY, seconds=SECONDS)
        beside = send(
            server, playing.pictures, clients=MANY, seconds=SECONDS, damaged=spoiled, resetting=RESETTING
        )
    if not alone.per_s:
        playing.drop(name, f"no good answer any more: {alone.troubles}")
        return
    bench.keep_round(
        name,
        alone_per_s=alone.per_s,
        beside_per_s=beside.per_s,
        kept=beside.per_s / alone.per_s,
        damaged_answers=sum(beside.raw["damaged"]["statuses"].values()),
        resets=beside.raw["resetting"]["failures"].get("reset", 0),
        good_troubles=sum(beside.troubles.values()),
    )
