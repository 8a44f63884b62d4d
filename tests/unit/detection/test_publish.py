"""From a training's checkpoints to a model that can be served."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from detection.data.records import Split
from detection.deploy import package
from detection.deploy.publish import Publication, publish
from detection.durable import sha256_of
from detection.errors import CheckpointError, ExportError
from detection.evaluation.evaluate import evaluate
from detection.inference.predictor import Predictor
from detection.model_files import ONNX_FILE, RECORD_FILE, WEIGHTS_FILE, read_record
from detection.training.run import open_checkpoints, train
from detection.training.state import StopRequest
from tests.small_job import Series, read_picture, small_job


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    train(small_job(folder))
    return folder


@pytest.fixture(scope="module")
def published(trained: Path) -> tuple[Publication, Path]:
    folder, series = trained / "model", Series()
    made = publish(small_job(trained), folder, reporter=series)
    assert made is not None
    assert series.stages == ["publishing"]
    return made, folder


@pytest.fixture
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes seconds, and not every test is about it."""
    monkeypatch.setattr("detection.deploy.publish.write_model", lambda *_, **__: ())


def test_the_model_is_complete(trained: Path, published: tuple[Publication, Path]) -> None:
    made, folder = published
    assert {each.name for each in made.files} == {WEIGHTS_FILE, ONNX_FILE, RECORD_FILE}
    for each in made.files:
        assert sha256_of(folder / each.name) == each.sha256
    assert made.record == read_record(folder) == small_job(trained).record
    assert made.record.classes == ("cat", "dog")
    assert made.complexity.parameters == sum(
        value.numel()
        for name, value in load_file(folder / WEIGHTS_FILE).items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )


def test_its_numbers_are_those_of_what_serves(trained: Path, published: tuple[Publication, Path]) -> None:
    made, folder = published
    job, served = small_job(trained), Predictor.from_folder(folder, backend="onnxruntime", threads=1)
    again = evaluate(served, job.val_images, read_picture)
    assert again is not None
    assert made.metrics is not None
    assert made.metrics["split"] == Split.VAL
    assert made.metrics["ap"] == pytest.approx(again.ap, abs=1e-3)
    assert made.metrics["per_class"][0]["label"] == "cat"


@pytest.mark.usefixtures("_no_export")
def test_augmentation_is_measured_beside_the_plain_look(
    trained: Path, published: tuple[Publication, Path]
) -> None:
    series, job = Series(), small_job(trained)
    job = replace(job, config=replace(job.config, evaluation=replace(job.config.evaluation, tta=True)))
    # The checkpoints are of the same training: how its end is measured changes nothing in it.
    made = publish(job, trained / "augmented", reporter=series)
    assert made is not None
    assert published[0].tta is None
    assert made.metrics == published[0].metrics, "the model's own metrics stay those of a plain look"
    assert made.tta is not None
    assert [each["scale"] for each in made.tta["passes"]] == [1.0, 0.83, 0.67]
    assert made.tta["plain"] == {name: made.metrics[name] for name in ("ap", "ap50", "ap75")}
    for name, value in made.tta["augmented"].items():
        assert made.tta["difference"][name] == pytest.approx(value - made.metrics[name])
    assert "test-time augmentation: 3 passes: 1, 0.83 lr, 0.67" in series.lines


def test_the_best_weights_are_published(trained: Path, published: tuple[Publication, Path]) -> None:
    best = open_checkpoints(small_job(trained), log=lambda line: None).load_best()
    assert best is not None
    stored = load_file(published[1] / WEIGHTS_FILE)
    for name, value in best["average"]["model"].items():
        assert torch.equal(stored[name], value), name


def test_where_a_model_comes_from_is_said(published: tuple[Publication, Path]) -> None:
    told = json.loads(json.dumps(dict(published[0].provenance)))
    assert set(told) == {
        *("dataset_sha256", "config_sha256", "config", "seed", "step", "source", "versions"),
        *(
            "deterministic",
            "precision",
            "threads",
            "devices",
            "processor",
            "instructions",
            "platform",
            "transfer",
        ),
    }
    assert told["config"]["input_size"] == 64


def test_an_interrupted_publication_makes_nothing(trained: Path, tmp_path: Path) -> None:
    made = publish(small_job(trained), tmp_path / "model", reporter=Series(), interrupted=lambda: True)
    assert made is None
    assert not (tmp_path / "model").exists()


@pytest.mark.usefixtures("_no_export")
def test_without_a_validation_split_there_are_no_numbers(tmp_path: Path) -> None:
    job = small_job(tmp_path / "run", val=0, epochs=1)
    train(job)
    made = publish(job, tmp_path / "model", reporter=Series())
    assert made is not None
    assert made.metrics is None


def test_a_graph_that_computes_something_else_is_not_published(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = package.export_onnx

    def spoiled(detector: torch.nn.Module, record: object) -> bytes:
        with torch.no_grad():
            for parameter in detector.parameters():
                parameter *= 1.5
            graph = export(detector, record)  # type: ignore[arg-type]
            for parameter in detector.parameters():
                parameter /= 1.5
        return graph

    monkeypatch.setattr(package, "export_onnx", spoiled)
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        publish(small_job(trained), tmp_path, reporter=Series())
    assert list(tmp_path.iterdir()) == []


def test_there_is_nothing_to_publish_before_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to publish"):
        publish(small_job(tmp_path), tmp_path / "model", reporter=Series())


@pytest.mark.usefixtures("_no_export")
def test_what_a_stopped_training_has_learnt_can_be_published(tmp_path: Path) -> None:
    job, series = small_job(tmp_path / "run"), Series()
    train(job, reporter=series, requests=lambda: StopRequest.CANCEL if 4 in series.rows else None)
    made = publish(job, tmp_path / "model", reporter=Series())
    assert made is not None
    assert made.provenance["step"] == 3
