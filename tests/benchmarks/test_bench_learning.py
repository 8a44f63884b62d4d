"""How well a training learns, and in what time: the figures that the README promises, through the REST API.

They take minutes on two cores, and mean nothing on a machine that does something else meanwhile.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.demo import GOOD_AP50
from tests.benchmarks.conftest import Bench
from tests.serving import Serve, short_folder

pytestmark = pytest.mark.benchmark

DEMO_S = 360
SEEDS = (0, 1, 2)
BCCD = {"ap": 0.57, "ap50": 0.865}
"""What the mean over the seeds must reach on the archive's own validation split."""


def test_demo(bench: Bench, tmp_path: Path) -> None:
    """`harrier demo` as it comes: trained from scratch, good enough, and in time."""
    started = time.monotonic()
    command = [sys.executable, "-m", "app.cli", "demo", "--output", str(tmp_path / "found.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    found = re.search(r"AP (\S+)  AP50 (\S+)", done.stdout)
    assert found, done.stderr
    ap, ap50 = map(float, found.groups())
    bench.keep("demo", ap=ap, ap50=ap50, seconds=round(seconds, 1))
    assert done.returncode == 0, done.stderr
    assert ap50 >= GOOD_AP50
    assert seconds <= DEMO_S


@pytest.fixture
def serve() -> Iterator[Serve]:
    with short_folder() as folder, Serve(folder / "home") as running:
        yield running


@pytest.mark.reference
def test_bccd(bench: Bench, serve: Serve, reference: Path) -> None:
    """Blood cells from COCO weights: ten epochs of the recipe, three seeds."""
    with (reference / "weights" / "yolox-nano-coco.pth").open("rb") as file:
        imported = serve.http.post("/models/import", files={"weights": file}, data={"name": "coco"})
    serve.succeeded(imported.headers["Location"])
    with (reference / "datasets" / "bccd-voc.zip").open("rb") as file:
        dataset = serve.http.post("/datasets", files={"archive": file}, data={"name": "bccd"}).json()
    serve.succeeded(f"/jobs/{dataset['job_id']}")

    body = {"dataset_id": dataset["id"], "init": "pretrained", "epochs": 10}
    for seed in SEEDS:
        started = time.monotonic()
        job = serve.http.post("/train", json={**body, "seed": seed}).headers["Location"]
        result = serve.succeeded(job, within_s=3600)["result"]
        model = serve.http.get(f"/models/{result['model_id']}").json()
        figures = {name: round(model["metrics"][name], 4) for name in BCCD}
        bench.keep(f"bccd, seed {seed}", **figures, seconds=round(time.monotonic() - started, 1))
    means = {name: statistics.mean(run[name] for run in bench.figures.values()) for name in BCCD}
    bench.keep("bccd, mean", **{name: round(mean, 4) for name, mean in means.items()})
    assert all(means[name] >= least for name, least in BCCD.items()), means
