"""On a GPU: images a second of YOLOX-s at 640 end to end, and as a share of what the bare engine does.

It needs no picture and no weights of others, imports and exports nothing, and takes about three minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor

from app.database.upgrade import upgrade_database
from app.detect.engine_client import EngineClient
from app.detect.wire import EngineStatus
from app.settings import Settings
from detection.devices import select_devices, wait_for
from detection.inference.backends.eager import EagerBackend
from detection.inference.serving import Precision, executor_name
from detection.model_record import ModelRecord
from detection.models import create_served_model
from tests.benchmarks.conftest import Bench
from tests.benchmarks.sending import send
from tests.benchmarks.started import Server
from tests.pictures import jpeg, noise
from tests.published import add_weights
from tests.serving import Serve, short_folder

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("default"),  # a library that warns does not end what took minutes to get to
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

BATCHES = (1, 8, 32)
PRECISIONS = (Precision.FP32, Precision.FP16)
WARM_UP_S = 2.0
SECONDS = 4.0
BARE_S = 1.5
LOAD_S = 120.0
PICTURES = 16
RECORD = ModelRecord(
    architecture="yolox-s", classes=tuple(f"class {each}" for each in range(80)), input_size_hw=(640, 640)
)
LoadBare = Callable[[Precision], EagerBackend]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with YOLOX-s; its weights are random, which changes nothing about how long it takes."""
    with short_folder() as folder:
        yield prepare_home(folder / "home")


def prepare_home(home: Path) -> Path:
    settings = Settings(home=home)
    upgrade_database(settings)
    torch.manual_seed(0)
    add_weights(settings, create_served_model(RECORD.architecture, num_classes=len(RECORD.classes)), RECORD)
    return home


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Made-up ones, of about as many pixels and bytes as those of COCO."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def write_pictures(folder: Path) -> list[str]:
    paths = [folder / f"{seed}.jpg" for seed in range(PICTURES)]
    for seed, path in enumerate(paths):
        coarse = noise(240, 180, seed) // 2 + 64
        path.write_bytes(jpeg(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)))
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def load_bare() -> LoadBare:
    """Return the backend as the engine loads it, once for each precision: its graphs take seconds."""

    @cache
    def load(precision: Precision) -> EagerBackend:
        torch.manual_seed(0)
        network = create_served_model(RECORD.architecture, num_classes=len(RECORD.classes)).eval()
        device = select_devices("auto")[0]
        return EagerBackend(network, device, precision=precision, graphs_for_hw=RECORD.input_size_hw)

    return load


@contextmanager
def serving(home: Path, batch: int, precision: Precision, picture: bytes) -> Iterator[tuple[Serve, Server]]:
    """Harrier on the GPU with the model in memory, and batches of so many pictures at most."""
    running = Serve(home, engine_batch_size=batch, backend=executor_name("eager", precision))
    running.environment["HARRIER_DEVICE"] = "auto"
    with running:
        headers = {"Content-Type": "image/jpeg"}
        until = time.monotonic() + LOAD_S
        while not (answer := running.http.post("/detect", content=picture, headers=headers)).is_success:
            assert time.monotonic() < until, f"{answer.text}\n{running.printed[-1500:]}"
            time.sleep(0.5)
        yield (
            running,
            Server(name="Harrier", port=running.settings.port, path="/detect", processes=running.processes),
        )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: f"{batch:02}")
def test_serving_gpu(
    bench: Bench, home: Path, pictures: list[str], load_bare: LoadBare, batch: int, precision: Precision
) -> None:
    """Two batches' worth of clients, so that one waits while the other computes."""
    backend = load_bare(precision)
    images = torch.zeros(batch, 3, *RECORD.input_size_hw)
    bare = runs_per_s(backend, images) * batch
    resident = runs_per_s(backend, images.to(backend.device)) * batch
    with serving(home, batch, precision, Path(pictures[0]).read_bytes()) as (running, server):
        status = asyncio.run(status_of(running.settings))
        counts = send(server, pictures, clients=2 * batch, seconds=SECONDS, warm_up_s=WARM_UP_S)
    bench.keep(
        f"{batch}, {precision}",
        per_s=counts.per_s,
        p50_ms=counts.ms(0.5),
        bare_per_s=bare,
        share=counts.per_s / bare,
        resident_per_s=resident,
        sender_cpu_ms=counts.cpu_ms,
        device=status.device,
    )
    assert counts.troubles == {}
    assert (status.backend, status.device != "CPU") == (executor_name("eager", precision), True)


async def status_of(settings: Settings) -> EngineStatus:
    client = EngineClient(settings)
    try:
        return await client.status()
    finally:
        await client.close()


def runs_per_s(backend: EagerBackend, images: Tensor) -> float:
    """Return how often a second a batch goes through the backend in a loop."""
    for _ in range(10):
        backend.run(images)
    wait_for(backend.device)
    runs, began = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - began) < BARE_S:
        backend.run(images)
        wait_for(backend.device)
        runs += 1
    return runs / passed_s
