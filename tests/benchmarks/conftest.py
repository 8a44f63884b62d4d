"""What benchmarks share: a server, a stopwatch that takes many runs, and one JSON file per benchmark."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import psutil
import pytest
import torch

from detection.model_record import ModelRecord
from detection.models import create_model
from detection.models.detector import Detector
from tests.benchmarks.comparison import Claim
from tests.benchmarks.pictures import write_pictures
from tests.pictures import jpeg, noise
from tests.serving import Serve, short_folder, wait_for

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "benchmarks"
WARM_UP = 3
SPENT_S = 3.0
"""How long one thing is measured, warming up apart."""
LEAST_RUNS = 5
RECORD = ModelRecord(
    architecture="yolox-nano",
    classes=tuple(f"class {number}" for number in range(80)),
    input_size_hw=(416, 416),
)
PICTURE = jpeg(cv2.resize(noise(64, 48), (640, 480), interpolation=cv2.INTER_CUBIC))
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class Bench:
    """Collects the figures of one benchmark."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, Any]] = {}

    def measure(self, name: str, run: Callable[[], object], *, device: str = "cpu", per_run: int = 1) -> None:
        """Call `run` many times and note milliseconds per item.

        Args:
            per_run: items that one run handles.
        """
        for _ in range(WARM_UP):
            run()
        times_ms: list[float] = []
        while len(times_ms) < LEAST_RUNS or sum(times_ms) < SPENT_S * 1000:
            _wait(device)
            started = time.perf_counter()
            run()
            _wait(device)
            times_ms.append((time.perf_counter() - started) * 1000)
        self.note(name, [each / per_run for each in times_ms])

    def note(self, name: str, times_ms: list[float], **more: Any) -> None:
        """Keep the distribution of some times."""
        ordered = sorted(times_ms)
        self.keep(
            name,
            median_ms=round(statistics.median(ordered), 3),
            p90_ms=round(ordered[int(0.9 * (len(ordered) - 1))], 3),
            p99_ms=round(ordered[int(0.99 * (len(ordered) - 1))], 3),
            runs=len(ordered),
            **more,
        )

    def keep(self, name: str, **figures: Any) -> None:
        """Keep figures of any kind."""
        self.figures[name] = figures
        print(f"  {name:<52} {_shortly(self.figures[name])}")

    def keep_round(self, name: str, **figures: float) -> None:
        """Add the figures of one round to those of the rounds before."""
        kept = self.figures.setdefault(name, {key: [] for key in figures})
        for key, value in figures.items():
            kept[key].append(round(value, 3))

    def judge(self, *claims: Claim) -> None:
        """Keep claims with what was found about them.

        Raises:
            AssertionError: one of them is not met.
        """
        self.figures["claims"] = {each.name: each.figures() for each in claims}
        for each in claims:
            print(f"  {each}")
        assert all(each.met for each in claims), "\n".join(str(each) for each in claims if not each.met)


@pytest.fixture(scope="session")
def detector() -> Detector:
    torch.manual_seed(0)
    return create_model(RECORD.architecture, num_classes=len(RECORD.classes)).eval()


@pytest.fixture
def serve(detector: Detector, tmp_path: Path) -> Iterator[Serve]:
    """A running server with one model."""
    weights = tmp_path / "weights.pth"
    torch.save({"model": detector.state_dict()}, weights)
    with short_folder() as folder, Serve(folder / "home") as running:
        with weights.open("rb") as file:
            fields = {"name": "bench", "architecture": RECORD.architecture}
            answer = running.http.post("/models/import", files={"weights": file}, data=fields)
        assert answer.status_code == 202, answer.text
        job = answer.headers["Location"]
        wait_for(lambda: running.http.get(job).json()["status"] not in ("queued", "running"), 120)
        assert running.http.get(job).json()["status"] == "succeeded", running.http.get(job).text
        yield running


@pytest.fixture(scope="session")
def coco_pictures(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """dog.jpg and the 49 pictures of COCO, as files."""
    return write_pictures(reference, tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A stopwatch whose figures are written to build/benchmarks when the test has passed or failed."""
    collected = Bench()
    print()
    yield collected
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = {"machine": _machine(), "figures": collected.figures}
    path = RESULTS / f"{request.node.name.removeprefix('test_')}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _shortly(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures as they fit on a line: of a list of times only how many there are."""
    return {key: f"{len(value)} values" if _is_long(value) else value for key, value in figures.items()}


def _is_long(value: object) -> bool:
    return isinstance(value, list) and len(value) > 10


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _machine() -> dict[str, Any]:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 1),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "source": described.stdout.strip(),
    }
