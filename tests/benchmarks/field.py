"""Everything that is measured side by side: Harrier, the bound, and the peers in two settings each."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.benchmarks.bound import BoundProcess, bound_process
from tests.benchmarks.harriers import Harrier, fetch_model, let_choose, serving_coco
from tests.benchmarks.peers.servers import EAGER, PEERS, Peer, serving
from tests.benchmarks.sending import Counts, send
from tests.benchmarks.started import NotStartedError, Server

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "9"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "1.2"))
"""What one server is measured in one round with many clients; a single one sends every picture once."""
WARM_UP_S = 0.3
"""Of a single client."""
LONGEST_S = 60.0
"""So long it may take with all pictures."""
MANY = 16
SETTLE_S = 1.0
"""After a server goes on: all that its clocks have missed comes due at once."""
NEEDED_BYTES = 2_000_000_000
"""Of memory, for one peer more: what is measured must not fight for it."""
HARRIER, HARRIER_ONNX = "Harrier", "Harrier with ONNX Runtime"
BOUND, BOUND_ONNX = "bound", "bound with ONNX Runtime"
BESIDE = {HARRIER: BOUND, HARRIER_ONNX: BOUND_ONNX}
"""What each is compared with."""
FULL = "bound, with as many callers as Harrier"
"""More than cores: OpenVINO leaves a core idle while a caller is woken. Shown; nothing is held to it."""
ONNX = "onnxruntime"


@dataclass
class Rows:
    """What one contender reached, round by round."""

    per_s: list[float] = field(default_factory=list)
    """At many clients."""
    p50_many_ms: list[float] = field(default_factory=list)
    p99_many_ms: list[float] = field(default_factory=list)
    p50_one_ms: list[float] = field(default_factory=list)
    """At one client."""
    troubles: dict[str, int] = field(default_factory=dict)

    def note(self, many: Counts, one: Counts) -> None:
        """Add a round of a server."""
        self.per_s.append(many.per_s)
        self.p50_many_ms.append(many.ms(0.5))
        self.p99_many_ms.append(many.ms(0.99))
        self.p50_one_ms.append(one.ms(0.5))
        for counts in (many, one):
            for trouble, times in counts.troubles.items():
                self.troubles[trouble] = self.troubles.get(trouble, 0) + times


@dataclass(frozen=True)
class Field:
    """All contenders, started, warm, and frozen but for the one whose turn it is."""

    harrier: Harrier
    pictures: list[str]
    graph_sha256: str
    executor: str
    """What Harrier chose for itself."""
    servers: dict[str, Server]
    bounds: dict[str, BoundProcess]
    missing: dict[str, str]
    """Peers that are not there, and why."""

    @contextmanager
    def turn(self, name: str) -> Iterator[Server]:
        """Let one server run."""
        server = self.servers[name]
        server.thaw()
        time.sleep(SETTLE_S)
        try:
            yield server
        finally:
            server.freeze()

    def drop(self, name: str, why: str) -> None:
        """Go on without a server that does not answer any more."""
        self.missing[name] = why
        del self.servers[name]

    def peers(self) -> list[str]:
        """Return the names of the peers that are there, eager torch apart."""
        return [peer.name for peer in PEERS if peer.name in self.servers]


@contextmanager
def playing_field(
    reference: Path, pictures: list[str], folder: Path, say: Callable[[str], None]
) -> Iterator[Field]:
    """Start everything; leave nothing of it."""
    with ExitStack() as stack:
        say("Harrier")
        harrier = stack.enter_context(serving_coco(HARRIER, reference))
        onnx = stack.enter_context(serving_coco(HARRIER_ONNX, reference, backend=ONNX))
        model = folder / "model"
        model.mkdir()
        sha256 = fetch_model(onnx, model)
        executor = let_choose(harrier, [Path(picture).read_bytes() for picture in pictures])
        servers = {HARRIER: harrier.server, HARRIER_ONNX: onnx.server}
        wanted = {BOUND: executor, BOUND_ONNX: ONNX}
        bounds = {
            name: stack.enter_context(bound_process(model, executor, pictures))
            for name, executor in wanted.items()
        }
        missing: dict[str, str] = {}
        for server in servers.values():
            server.freeze()
            stack.callback(server.thaw)  # what is frozen cannot end in order
        for peer in (*PEERS, EAGER):
            say(peer.name)
            try:
                server = stack.enter_context(_started(peer, model, folder, pictures))
            except NotStartedError as error:
                missing[peer.name] = str(error)
            else:
                servers[peer.name] = server
        yield Field(harrier, pictures, sha256, executor, servers, bounds, missing)


@contextmanager
def _started(peer: Peer, model: Path, folder: Path, pictures: list[str]) -> Iterator[Server]:
    available = psutil.virtual_memory().available
    if available < NEEDED_BYTES:
        raise NotStartedError(f"only {available / 1e9:.1f} GB of memory are left")
    home = folder / peer.name.replace(" ", "-").replace(",", "")
    home.mkdir()
    with serving(peer, model, home, Path(pictures[0]).read_bytes()) as server:
        send(server, pictures, clients=MANY, seconds=1.0)
        server.freeze()
        try:
            yield server
        finally:
            server.thaw()


def _measure_busy(playing: Field, name: str, rows: dict[str, Rows]) -> None:
    """Measure a bound with all streams, at once before its Harrier: the machine changes within seconds."""
    bound = playing.bounds[BESIDE[name]]
    rows[BESIDE[name]].per_s.append(bound.ask("busy", SECONDS)["per_s"])
    if BESIDE[name] == BOUND:
        rows[FULL].per_s.append(bound.ask("full", SECONDS)["per_s"])


def _send_each_once(playing: Field, server: Server) -> Counts:
    """Send every picture once from one client: some take a sixth longer than others."""
    every = len(playing.pictures)
    return send(server, playing.pictures, requests=every, seconds=LONGEST_S, warm_up_s=WARM_UP_S)


def _measure_one(playing: Field, name: str, server: Server, rows: dict[str, Rows]) -> Counts:
    """Measure one client; a Harrier between two looks of its bound at the same pictures."""
    if name not in BESIDE:
        return _send_each_once(playing, server)
    bound = playing.bounds[BESIDE[name]]
    times_ms = bound.ask("idle", 1)["times_ms"]
    one = _send_each_once(playing, server)
    times_ms += bound.ask("idle", 1)["times_ms"]
    rows[BESIDE[name]].p50_one_ms.append(statistics.median(times_ms))
    return one


def measure_round(playing: Field, rows: dict[str, Rows]) -> list[float]:
    """Measure every contender once, and return what the sender took for a request, before each server.

    Every other round goes backwards, so that a machine that becomes slower meanwhile favours nobody.
    """
    costs, names = [], list(playing.servers)
    for name in reversed(names) if len(rows[HARRIER].per_s) % 2 else names:
        if name in BESIDE:
            _measure_busy(playing, name, rows)
        with playing.turn(name) as server:
            many = send(server, playing.pictures, clients=MANY, seconds=SECONDS)
            one = _measure_one(playing, name, server, rows)
        if many.good["times_ms"] and one.good["times_ms"]:
            rows[name].note(many, one)
            costs.append(many.cpu_ms)
        else:
            playing.drop(name, f"no good answer any more: {many.troubles}, {one.troubles}")
    return costs
