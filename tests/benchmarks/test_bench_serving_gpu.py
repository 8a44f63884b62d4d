"""On a GPU: images a second of YOLOX-s at 640 end to end, and as a share of what the bare engine does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from detection.deploy.package import write_model
from detection.inference.predictor import Predictor
from detection.model_files import WEIGHTS_FILE
from detection.model_record import ModelRecord
from detection.models import create_served_model
from tests.benchmarks.conftest import Bench
from tests.benchmarks.sending import send
from tests.benchmarks.started import Server
from tests.serving import Serve, short_folder

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.reference,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

BATCHES = (1, 8, 32)
SECONDS = 5.0
WARM_UP_S = 5.0
RECORD = ModelRecord(
    architecture="yolox-s", classes=tuple(f"class {each}" for each in range(80)), input_size_hw=(640, 640)
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with YOLOX-s; its weights are random, which changes nothing about how long it takes."""
    folder = tmp_path_factory.mktemp("yolox-s")
    torch.manual_seed(0)
    write_model(create_served_model("yolox-s", num_classes=80).eval(), RECORD, folder)
    return folder


@contextmanager
def serving(model: Path, batch: int) -> Iterator[Server]:
    """Harrier on the GPU with that model, and batches of so many pictures at most."""
    with short_folder() as folder:
        weights = folder / "weights.pth"
        torch.save({"model": load_file(model / WEIGHTS_FILE)}, weights)
        running = Serve(folder / "home", engine_batch_size=batch)
        running.environment["HARRIER_DEVICE"] = "auto"
        with running, weights.open("rb") as file:
            fields = {"name": "bench", "architecture": RECORD.architecture}
            answer = running.http.post("/models/import", files={"weights": file}, data=fields)
            running.succeeded(answer.headers["Location"])
            yield Server(
                name="Harrier", port=running.settings.port, path="/detect", processes=running.processes
            )


@pytest.mark.parametrize("batch", BATCHES)
def test_serving_gpu(bench: Bench, model: Path, coco_pictures: list[str], batch: int) -> None:
    """Two batches' worth of clients, so that one waits while the other computes."""
    bare = bare_per_s(model, batch)
    with serving(model, batch) as server:
        counts = send(server, coco_pictures, clients=2 * batch, seconds=SECONDS, warm_up_s=WARM_UP_S)
    bench.keep(
        f"batch {batch}",
        per_s=counts.per_s,
        p50_ms=counts.ms(0.5),
        bare_per_s=bare,
        share=counts.per_s / bare,
        gpu=torch.cuda.get_device_name(),
    )


def bare_per_s(model: Path, batch: int) -> float:
    """Return how many prepared pictures a second go through the backend in a loop."""
    predictor = Predictor.from_folder(model, backend="eager", device=torch.device("cuda"))
    images = torch.zeros(batch, 3, *RECORD.input_size_hw)
    for _ in range(10):
        predictor.backend.run(images)
    torch.cuda.synchronize()
    runs, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        predictor.backend.run(images)
        torch.cuda.synchronize()
        runs += 1
    return runs * batch / (time.perf_counter() - began)
