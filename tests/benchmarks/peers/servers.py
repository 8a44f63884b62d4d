"""How each peer is started in each of the two natural settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.peers.install import ROOT, python_of
from tests.benchmarks.started import NotStartedError, Server, Started
from tests.serving import free_port

CORES = len(os.sched_getaffinity(0))
ALL_THREADS, STREAMS = "all threads per request", "one thread per stream"
APPS = "tests.benchmarks.peers"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "True", "NO_COLOR": "1"}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One peer in one setting."""

    title: str
    environment: str
    """Its folder below `.venv-peers`."""
    setting: str
    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.title}, {self.setting}"


COMMANDS: dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    "FastAPI": (
        "fastapi",
        (
            *("-m", "uvicorn", f"{APPS}.fastapi_app:app", "--host", "127.0.0.1", "--port", "{port}"),
            *("--workers", "{workers}", "--no-access-log", "--log-level", "warning"),
        ),
        (),
    ),
    "LitServe": ("litserve", ("-m", f"{APPS}.litserve_app"), ()),
    "Mosec": (
        "mosec",
        (
            *("-m", f"{APPS}.mosec_app", "--address", "127.0.0.1", "--port", "{port}"),
            *("--timeout", "30000", "--log-level", "warning"),
        ),
        (),
    ),
    "Ray Serve": (
        "ray",
        ("-m", f"{APPS}.ray_app"),
        (("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1"), ("RAY_SERVE_ENABLE_DIRECT_INGRESS", "0")),
    ),
    "BentoML": (
        "bentoml",
        ("-m", "bentoml", "serve", f"{APPS}.bentoml_app:Detect", "--host", "127.0.0.1", "--port", "{port}"),
        (),
    ),
}
PEERS = [
    Peer(title=title, environment=environment, setting=setting, command=command, variables=variables)
    for title, (environment, command, variables) in COMMANDS.items()
    for setting in (ALL_THREADS, STREAMS)
]
EAGER = Peer(
    title="FastAPI with eager torch",
    environment="fastapi",
    setting=ALL_THREADS,
    command=COMMANDS["FastAPI"][1],
    variables=(("BENCH_BACKEND", "eager"),),
)


@contextmanager
def serving(peer: Peer, model: Path, folder: Path, picture: bytes) -> Iterator[Server]:
    """Start a peer with the model of a folder, and leave nothing of it.

    Raises:
        NotStartedError: it is not installed, or does not answer.
    """
    python = python_of(peer.environment)
    if python is None:
        raise NotStartedError("not installed; `make bench-peers` installs it, or says why it cannot")
    port = free_port()
    workers = 1 if peer.setting == ALL_THREADS else CORES
    command = [str(python), *(part.format(port=port, workers=workers) for part in peer.command)]
    started = Started(command, _variables(peer, model, folder, port, workers), folder / "log", ROOT)
    try:
        started.wait_until_it_answers(f"http://127.0.0.1:{port}/detect", picture)
        yield Server(name=peer.name, port=port, path="/detect", processes=started.processes)
    finally:
        started.stop()


def _variables(peer: Peer, model: Path, folder: Path, port: int, workers: int) -> dict[str, str]:
    one_thread = {"BENCH_THREADS": "1", "OMP_NUM_THREADS": "1"} if peer.setting == STREAMS else {}
    return {
        **QUIET,
        **one_thread,
        "BENCH_MODEL": str(model),
        "BENCH_PORT": str(port),
        "BENCH_WORKERS": str(workers),
        "BENTOML_HOME": str(folder / "bentoml"),
        **dict(peer.variables),
    }
