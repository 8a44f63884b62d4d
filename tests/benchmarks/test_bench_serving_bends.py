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
OVERLOAD, OVERLOAD_S = 4, 10.0
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
    """An open loop at four times the capacity: the accepted keep their latency, the rest is told at once."""
    one = send(harrier.server, coco_pictures, clients=1, seconds=UNLOADED_S)
    many = send(harrier.server, coco_pictures, clients=MANY, seconds=UNLOADED_S)
    before = harrier.rss_mb()
    with sampled(harrier) as memory:
        flood = send(
            harrier.server,
            coco_pictures,
            clients=CONNECTIONS,
            rate=OVERLOAD * many.per_s,
            seconds=OVERLOAD_S,
            warm_up_s=0.0,
        )
    after = send(harrier.server, coco_pictures, clients=1, seconds=UNLOADED_S)
    good = flood.good
    bench.keep("one client", p50_ms=one.ms(0.5), p99_ms=one.ms(0.99), per_s=one.per_s)
    bench.keep("16 clients", p50_ms=many.ms(0.5), p99_ms=many.ms(0.99), per_s=many.per_s)
    bench.keep(
        "overload",
        offered_per_s=OVERLOAD * many.per_s,
        accepted_per_s=flood.per_s,
        accepted_p50_ms=flood.ms(0.5),
        accepted_p99_ms=flood.ms(0.99),
        refused=len(good["refused_ms"]),
        refused_p99_ms=percentile(good["refused_ms"] or [0.0], 0.99),
        statuses=good["statuses"],
        failures=good["failures"],
        retry_after_s=good["retry_after"],
        sent_late_p99_ms=percentile(flood.raw["late_ms"], 0.99),
        not_sent=flood.raw["unsent"],
    )
    bench.keep("one client, afterwards", p50_ms=after.ms(0.5), p99_ms=after.ms(0.99))
    bench.keep("memory", before_mb=before, most_mb={role: max(mb) for role, mb in memory.mb.items()})
    others = sum(times for status, times in good["statuses"].items() if status not in ("200", REFUSED))
    bench.judge(
        claim("accepted p99 / p99 of one client", "<=", 3.0, [flood.ms(0.99) / one.ms(0.99)]),
        claim("accepted p99 / p99 of 16 clients", "<=", 3.0, [flood.ms(0.99) / many.ms(0.99)]),
        claim("p99 of refusals, ms", "<=", 100.0, [percentile(good["refused_ms"] or [0.0], 0.99)]),
        claim("refusals without Retry-After", "<=", 0, [good["retry_after"].get("None", 0)]),
        claim("accepted / capacity", ">=", 0.8, [flood.per_s / many.per_s]),
        claim(
            "other answers, connections that failed, requests that could not be sent",
            "<=",
            0,
            [others + sum(good["failures"].values()) + flood.raw["unsent"]],
        ),
        claim(
            "memory under overload / before",
            "<=",
            1.5,
            [max(max(memory.mb[role]) / before[role] for role in before)],
            "of API and engine the one that grew more",
        ),
    )


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
