"""Real archives through the REST API: each becomes a dataset, and its report names its real faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.serving import Serve

pytestmark = pytest.mark.reference


class Real(NamedTuple):
    """What is known about an archive, counted by hand or by its makers."""

    format: str
    num_classes: int
    images: dict[str, int]
    """By split."""
    boxes: int
    counts: dict[str, int]
    """Of findings by code."""


ARCHIVES = {
    "bccd-voc": Real("voc", 3, {"train": 205, "val": 87, "test": 72}, 4886, {"box_empty": 2}),
    "microcontrollers-voc": Real("voc", 4, {"train": 113, "val": 29, "test": 7}, 177, {"validation_cut": 1}),
    "microcontrollers-yolo": Real("yolo", 4, {"train": 142, "val": 7}, 177, {}),
    "coco-val-49-coco": Real("coco", 80, {"val": 49}, 495, {"class_without_boxes": 20}),
}
EMPTY_BOXES = {"Annotations/BloodImage_00338.xml", "Annotations/BloodImage_00343.xml"}


def uploaded(serve: Serve, archive: Path) -> dict[str, Any]:
    with archive.open("rb") as content:
        answer = serve.http.post("/datasets", files={"archive": content}, data={"name": archive.stem})
    assert answer.status_code == 202, answer.text
    dataset: dict[str, Any] = answer.json()
    return dataset


def test_real_archives_become_datasets_and_show_their_faults(serve: Serve, reference: Path) -> None:
    sent = {name: uploaded(serve, reference / "datasets" / f"{name}.zip") for name in ARCHIVES}
    for name, expected in ARCHIVES.items():
        serve.succeeded(f"/jobs/{sent[name]['job_id']}", within_s=200)
        dataset = serve.http.get(f"/datasets/{sent[name]['id']}").json()
        report = serve.http.get(f"/datasets/{sent[name]['id']}/report").json()
        splits = dataset["splits"]
        assert (dataset["status"], dataset["format"]) == ("ready", expected.format)
        assert len(dataset["classes"]) == expected.num_classes
        assert {split: counts["images"] for split, counts in splits.items()} == expected.images
        assert sum(counts["boxes"] for counts in splits.values()) == expected.boxes
        assert report["counts"] == expected.counts
        assert len(report["findings"]) == sum(expected.counts.values())
        empty = [finding for finding in report["findings"] if finding["code"] == "box_empty"]
        assert {finding["file"] for finding in empty} <= EMPTY_BOXES
        assert all(finding["action"] == "dropped" and finding["where"] for finding in empty)


def test_published_weights_are_measured_as_they_were_published(serve: Serve, reference: Path) -> None:
    dataset = uploaded(serve, reference / "datasets" / "coco-val-49-coco.zip")
    with (reference / "weights" / "nanodet-plus-m-416-coco.ckpt").open("rb") as file:
        answer = serve.http.post("/models/import", files={"weights": file}, data={"name": "nanodet"})
    assert answer.status_code == 202, answer.text
    imported = serve.succeeded(answer.headers["location"], within_s=120)
    serve.succeeded(f"/jobs/{dataset['job_id']}", within_s=120)
    model = f"/models/{imported['result']['model_id']}"
    asked = serve.http.post(f"{model}/evaluate", json={"dataset_id": dataset["id"], "split": "val"})
    measured = serve.succeeded(asked.headers["location"], within_s=200)
    metrics = serve.http.get(f"/evaluations/{measured['result']['evaluation_id']}").json()["metrics"]
    assert metrics["ap"] == pytest.approx(0.350, abs=0.002)
    assert metrics["ap50"] == pytest.approx(0.513, abs=0.004)
