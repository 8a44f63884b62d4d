"""How `/detect` bends: four times what it can do, and ten thousand requests while models are swapped."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.benchmarks.comparison import claim, percentile, slope
from tests.benchmarks.conftest import Bench
from tests.benchmarks.field import HARRIER, MANY
from tests.benchmarks.harriers import Harrier, import_model, let_choose, serving_coco
from tests.benchmarks.sending import Counts, send
from tests.benchmarks.started import rss_mb

pytestmark = [pytest.mark.benchmark, pytest.mark.reference]

UNLOADED_S = 4.0
OVERLOAD_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
ONE_S, MANY_S = 2.5, 2.0
OVERLOAD, OVERLOAD_S = 4, 8.0
CONNECTIONS = 1500
REFUSED = "503"
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "10000"))
SWAPS, CLIENTS = REQUESTS // 50, 8
HASTE = 0.6
"""Of the time between two swaps that would be even: the last is done well before the last request."""
SETTLED = 0.25
"""Share of the samples of memory that belong to the beginning, when caches still fill."""
FLAT_MB_PER_1000 = 1.0
SAMPLE_S = 0.25
LONGEST_S = 600.0
ALIAS = "production"


@pytest.fixture(scope="module")
def harrier(reference: Path, coco_pictures: list[str]) -> Iterator[Harrier]:
    with serving_coco(HARRIER, reference) as running:
        let_choose(running, [Path(picture).read_bytes() for picture in coco_pictures])
        yield running


@dataclass
class Memory:
    """What the two processes of a request had, sampled while something went on."""

    at_s: list[float] = field(default_factory=list)
    mb: dict[str, list[float]] = field(default_factory=lambda: {"api": [], "engine": []})


@contextmanager
def sampled(harrier: Harrier) -> Iterator[Memory]:
    """Sample the memory until the block ends."""
    memory, enough, began = Memory(), threading.Event(), time.perf_counter()

    def sample() -> None:
        while not enough.wait(SAMPLE_S):
            memory.at_s.append(time.perf_counter() - began)
            for role, processes in roles.items():
                memory.mb[role].append(rss_mb(processes))

    roles = harrier.roles()
    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield memory
    finally:
        enough.set()
        sampler.join()


def test_serving_overload(bench: Bench, harrier: Harrier, coco_pictures: list[str]) -> None:
    """An open loop at four times the capacity: the accepted keep their latency, the rest is told at once.

    A round is one client, sixteen, the flood, one client again: each is judged by its own machine.
    """
    before = harrier.rss_mb()
    with sampled(harrier) as memory:
        rounds = [measure_flood(harrier, coco_pictures) for _ in range(OVERLOAD_ROUNDS)]
    for number, each in enumerate(rounds, 1):
        bench.keep(f"round {number}", **each.figures())
    bench.keep("memory", before_mb=before, most_mb={role: max(mb) for role, mb in memory.mb.items()})
    bench.judge(
        claim("accepted p99 / p99 of one client", "<=", 3.0, [each.slowness(each.one) for each in rounds]),
        claim("accepted p99 / p99 of 16 clients", "<=", 3.0, [each.slowness(each.many) for each in rounds]),
        claim("p99 of refusals, ms", "<=", 100.0, [each.refused_p99_ms for each in rounds]),
        claim(
            "refusals without Retry-After, of all rounds", "<=", 0, [sum(each.unhinted for each in rounds)]
        ),
        claim(
            "other answers, connections that failed, requests that could not be sent, of all rounds",
            "<=",
            0,
            [sum(each.troubles for each in rounds)],
        ),
        claim(
            "memory under overload / before",
            "<=",
            1.5,
            [max(max(memory.mb[role]) / before[role] for role in before)],
            "of API and engine the one that grew more",
        ),
    )


@dataclass(frozen=True)
class Flood:
    """Four times what sixteen clients reached, between one client and one client."""

    one: Counts
    many: Counts
    flood: Counts
    after: Counts

    @property
    def refused_p99_ms(self) -> float:
        return percentile(self.flood.good["refused_ms"] or [0.0], 0.99)

    @property
    def unhinted(self) -> int:
        return int(self.flood.good["retry_after"].get("None", 0))

    @property
    def troubles(self) -> int:
        good = self.flood.good
        others = sum(times for status, times in good["statuses"].items() if status not in ("200", REFUSED))
        return others + sum(good["failures"].values()) + int(self.flood.raw["unsent"])

    def slowness(self, unloaded: Counts) -> float:
        """Return the p99 of the accepted beside that of others."""
        return self.flood.ms(0.99) / unloaded.ms(0.99)

    def figures(self) -> dict[str, Any]:
        good = self.flood.good
        return {
            **_percentiles("one", self.one),
            **_percentiles("many", self.many),
            **_percentiles("accepted", self.flood),
            **_percentiles("after", self.after),
            "refused_p99_ms": self.refused_p99_ms,
            "offered_per_s": OVERLOAD * self.many.per_s,
            "accepted_per_s": self.flood.per_s,
            "kept": self.flood.per_s / self.many.per_s,
            "refused": len(good["refused_ms"]),
            "statuses": good["statuses"],
            "failures": good["failures"],
            "retry_after_s": good["retry_after"],
            "sent_late_p99_ms": percentile(self.flood.raw["late_ms"], 0.99),
            "not_sent": self.flood.raw["unsent"],
        }


def _percentiles(name: str, counts: Counts) -> dict[str, float]:
    return {f"{name}_p50_ms": counts.ms(0.5), f"{name}_p99_ms": counts.ms(0.99)}


def measure_flood(harrier: Harrier, pictures: list[str]) -> Flood:
    """Measure one round."""
    server = harrier.server
    one = send(server, pictures, clients=1, seconds=ONE_S)
    many = send(server, pictures, clients=MANY, seconds=MANY_S)
    flood = send(
        server,
        pictures,
        clients=CONNECTIONS,
        rate=OVERLOAD * many.per_s,
        seconds=OVERLOAD_S,
        warm_up_s=0.0,
    )
    return Flood(one, many, flood, send(server, pictures, clients=1, seconds=ONE_S))


def test_serving_soak(bench: Bench, harrier: Harrier, reference: Path, coco_pictures: list[str]) -> None:
    """Ten thousand requests while an alias is moved two hundred times between two models."""
    models = [harrier.model_id, import_model(harrier.serve, reference, "coco again")]
    capacity = send(harrier.server, coco_pictures, clients=CLIENTS, seconds=UNLOADED_S).per_s
    pause_s = HASTE * REQUESTS / capacity / SWAPS
    with sampled(harrier) as memory, swapping(harrier, models, pause_s) as swaps_ms:
        counts = send(
            harrier.server,
            coco_pictures,
            clients=CLIENTS,
            requests=REQUESTS,
            seconds=LONGEST_S,
            name_models=True,
        )
    named = counts.good["models"]
    growth = {role: growth_per_1000(memory, role, counts) for role in memory.mb}
    bench.keep(
        "soak",
        requests=sum(counts.good["statuses"].values()),
        seconds=counts.raw["seconds"],
        per_s=counts.per_s,
        p50_ms=counts.ms(0.5),
        p99_ms=counts.ms(0.99),
        swaps=len(swaps_ms),
        swap_p50_ms=statistics.median(swaps_ms),
        statuses=counts.good["statuses"],
        failures=counts.good["failures"],
        answers_by_model=[named.get(model, 0) for model in models],
    )
    bench.keep("growth in MB per 1,000 requests", **{role: round(each, 4) for role, each in growth.items()})
    bench.keep("memory", at_s=memory.at_s, **memory.mb)
    server_errors = sum(times for status, times in counts.good["statuses"].items() if status >= "500")
    bench.judge(
        claim("requests", ">=", REQUESTS, [sum(counts.good["statuses"].values())]),
        claim("swaps", ">=", SWAPS, [len(swaps_ms)]),
        claim("answers 5xx", "<=", 0, [server_errors]),
        claim("connections that failed", "<=", 0, [sum(counts.good["failures"].values())]),
        claim(
            "answers that name no model or another",
            "<=",
            0,
            [sum(named.values()) - sum(named.get(each, 0) for each in models)],
        ),
        claim(
            "answers of the model that answered less", ">=", 1, [min(named.get(each, 0) for each in models)]
        ),
        *(
            claim(f"growth of the {role} in MB per 1,000 requests", "<=", FLAT_MB_PER_1000, [each])
            for role, each in growth.items()
        ),
    )


@contextmanager
def swapping(harrier: Harrier, models: list[str], pause_s: float) -> Iterator[list[float]]:
    """Move the alias from one model to the other, again and again; yields how long each move took."""
    enough, took_ms = threading.Event(), list[float]()

    def swap() -> None:
        address = f"http://127.0.0.1:{harrier.serve.settings.port}"
        with httpx2.Client(base_url=address, trust_env=False, timeout=30) as http:
            began = time.perf_counter()
            while len(took_ms) < SWAPS and not enough.wait(
                began + len(took_ms) * pause_s - time.perf_counter()
            ):
                wanted = models[len(took_ms) % len(models)]
                started = time.perf_counter()
                http.patch(f"/models/{wanted}", json={"alias": ALIAS}).raise_for_status()
                took_ms.append((time.perf_counter() - started) * 1000)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield took_ms
    finally:
        enough.set()
        swapper.join()


def growth_per_1000(memory: Memory, role: str, counts: Counts) -> float:
    """Return by how many MB a process grows with 1,000 requests, once it has settled."""
    start = int(SETTLED * len(memory.at_s))
    per_s = slope(memory.at_s[start:], memory.mb[role][start:])
    return per_s / counts.per_s * 1000
