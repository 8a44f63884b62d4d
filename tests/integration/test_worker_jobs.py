"""Every kind of job with a real broker and real workers, on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict
from typing import Any

import pytest
import torch
from sqlalchemy import func, select

from app.database.tables import (
    Dataset,
    Evaluation,
    Job,
    JobEvent,
    JobMetric,
    Model,
    ModelFile,
    OutboxRow,
    new_id,
)
from app.jobs import protocol
from app.jobs.states import JobKind, JobStatus
from detection.families.yolox import YoloxConfig
from detection.models import create_model, create_served_model
from detection.training.config import EvaluationConfig, ScheduleConfig
from detection.training.recipes import resolve
from tests.archives import zip_of
from tests.services import Home, wait_until
from tests.tiny_dataset import CLASSES, NUM_TRAIN, NUM_VAL, SPLITS, tiny_archive

EPOCHS, STEPS = 2, 4


def imported(home: Home, archive: bytes, **options: Any) -> tuple[str, str]:
    """Queue an import as the API does; return the ids of dataset and job."""
    dataset_id = new_id()
    key = f"uploads/{dataset_id}/archive"
    home.storage.write(key, io.BytesIO(archive))
    with home.sessions() as session:
        session.add(Dataset(id=dataset_id, name="tiny", sha256=hashlib.sha256(archive).hexdigest()))
        session.commit()
    config = {"upload_key": key, "format": "auto", "validation_fraction": 0.2, "seed": 0, "classes": None}
    config |= {"dataset_id": dataset_id, **options}
    return dataset_id, home.queue_job(JobKind.DATASET_IMPORT, dataset_id=dataset_id, config=config)


def stored_json(home: Home, key: str) -> Any:
    with home.storage.open(key) as file:
        return json.load(file)


def get(home: Home, table: type[Any], **conditions: Any) -> Any:
    with home.sessions() as session:
        return session.scalars(select(table).filter_by(**conditions)).one()


def test_a_life_of_jobs(any_house: Home) -> None:
    dataset_id = an_archive_becomes_a_dataset(any_house)
    model_id = a_training_becomes_a_model(any_house, dataset_id)
    it_leaves_its_whole_series_and_log(any_house, model_id)
    its_files_are_what_the_rows_say(any_house, model_id)
    evaluation = evaluation_of(any_house, model_id, dataset_id)
    it_can_be_had_for_torch(any_house, model_id)
    it_is_measured_as_its_training_measured_it(any_house, model_id, evaluation)
    it_is_measured_with_augmentation_too(any_house, model_id, dataset_id)
    nothing_waits_and_nobody_owns_anything(any_house)


def an_archive_becomes_a_dataset(home: Home) -> str:
    dataset_id, job_id = imported(home, tiny_archive())
    job = home.wait_for(job_id)
    assert job.status == JobStatus.SUCCEEDED, home.logs()
    dataset = get(home, Dataset, id=dataset_id)
    prefix = f"datasets/{dataset_id}/1"
    assert (dataset.status, dataset.format, dataset.classes) == ("ready", "yolo", list(CLASSES))
    assert (dataset.splits, dataset.storage_prefix) == (SPLITS, prefix)
    assert (job.result, job.progress) == ({"dataset_id": dataset_id}, {"fraction": 1.0})
    assert stored_json(home, f"{prefix}/report.json") == {"findings": [], "counts": {}}
    assert stored_json(home, f"{prefix}/statistics.json")["boxes"]["train"] == NUM_TRAIN
    assert len(list(home.storage.keys(f"{prefix}/images/"))) == NUM_TRAIN + NUM_VAL
    wait_until(lambda: not list(home.storage.keys("uploads/")), timeout_s=20)
    wait_until(lambda: not list((home.settings.scratch / "jobs").iterdir()), timeout_s=20)
    return dataset_id


def a_training_becomes_a_model(home: Home, dataset_id: str) -> str:
    config = YoloxConfig(
        epochs=EPOCHS,
        batch_size=2,
        input_size=64,
        schedule=ScheduleConfig(no_aug_epochs=1),
        evaluation=EvaluationConfig(tta=True),
    )
    resolved = asdict(resolve(config, num_images=NUM_TRAIN))
    job_id = home.queue_job(JobKind.TRAIN, name="tiny training", dataset_id=dataset_id, config=resolved)
    job = home.wait_for(job_id, timeout_s=240)
    assert job.status == JobStatus.SUCCEEDED, home.logs()
    model = get(home, Model, job_id=job_id)
    assert job.result == {"model_id": model.id, "ended_early": None}
    assert (model.name, model.origin, model.architecture) == ("tiny training", "trained", "yolox-nano")
    assert (model.classes, model.input_size) == (list(CLASSES), [64, 64])
    assert (model.metrics["split"], model.metrics["images"]) == ("val", NUM_VAL)
    assert model.provenance["dataset_sha256"] == get(home, Dataset, id=dataset_id).sha256
    assert model.provenance["device"] == "cpu"
    evaluation = get(home, Evaluation, job_id=job_id)
    assert evaluation.metrics == model.metrics
    assert evaluation.tta["plain"]["ap"] == model.metrics["ap"], "what augmentation adds stands beside it"
    assert job.progress == {"epoch": 2, "epochs": 2, "step": STEPS, "steps": STEPS, "fraction": 1.0}
    assert {"loss", "box", "objectness", "class", "lr", "images_per_s", "ap", "ap50"} <= set(job.metrics)
    assert {"preparing_s", "training_s", "evaluating_s", "publishing_s"} <= set(job.timing)
    wait_until(lambda: not (home.settings.checkpoints / job_id).exists(), timeout_s=20)
    return str(model.id)


def it_leaves_its_whole_series_and_log(home: Home, model_id: str) -> None:
    job_id = get(home, Model, id=model_id).job_id
    with home.sessions() as session:
        series = select(JobMetric.step, JobMetric.values).where(JobMetric.job_id == job_id)
        rows = session.execute(series.order_by(JobMetric.step)).all()
        events = select(JobEvent.kind, func.count()).where(JobEvent.job_id == job_id)
        counts = {row[0]: row[1] for row in session.execute(events.group_by(JobEvent.kind))}
    assert [row.step for row in rows] == list(range(1, STEPS + 1))
    for row in rows:
        parts = sum(row.values[name] for name in ("box", "objectness", "class", "l1"))
        assert row.values["loss"] == pytest.approx(parts)
    assert "ap" in rows[-1].values
    assert counts["metric"] >= 2, "at least one for each AP"
    assert counts["log"] >= 3
    assert "Model Summary" in home.logs()


def its_files_are_what_the_rows_say(home: Home, model_id: str) -> None:
    with home.sessions() as session:
        files = session.scalars(select(ModelFile).where(ModelFile.model_id == model_id)).all()
    assert {file.format for file in files} == {"safetensors", "onnx"}
    for file in files:
        with home.storage.open(file.key) as content:
            data = content.read()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size_bytes, file.sha256)


def evaluation_of(home: Home, model_id: str, dataset_id: str, **wish: Any) -> str:
    """Queue an evaluation; the worker of the other queue need not wait for it."""
    config = {"model_id": model_id, "dataset_id": dataset_id, "split": "val", "device": "auto", **wish}
    return home.queue_job(JobKind.EVALUATE, dataset_id=dataset_id, model_id=model_id, config=config)


def it_can_be_had_for_torch(home: Home, model_id: str) -> None:
    config = {"model_id": model_id, "format": "torch"}
    job_id = home.queue_job(JobKind.EXPORT, model_id=model_id, config=config)
    assert home.wait_for(job_id, timeout_s=120).status == JobStatus.SUCCEEDED, home.logs()
    file = get(home, ModelFile, model_id=model_id, format="torch")
    with home.storage.open(file.key) as content:
        loaded = torch.load(content, weights_only=True)
    assert loaded["record"]["classes"] == CLASSES
    create_model("yolox-nano", num_classes=2).load_state_dict(loaded["model"])


def it_is_measured_as_its_training_measured_it(home: Home, model_id: str, job_id: str) -> None:
    job = home.wait_for(job_id, timeout_s=120)
    assert job.status == JobStatus.SUCCEEDED, home.logs()
    evaluation = get(home, Evaluation, id=(job.result or {})["evaluation_id"])
    trained = get(home, Model, id=model_id).metrics
    assert {name: evaluation.metrics[name] for name in trained} == trained
    with home.sessions() as session:
        details = session.execute(select(Evaluation.curves, Evaluation.confusion_matrix)).all()
    assert len(details) == 2
    assert details[0] == details[1]
    assert details[0].confusion_matrix["labels"] == [*CLASSES, "background"]
    assert evaluation.metrics["classes_unknown_to_model"] == []
    with home.sessions() as session:
        said = select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.kind == "log")
        first = session.scalars(said.order_by(JobEvent.id)).first() or {}
    assert first["line"].startswith("harrier "), "which code, which torch, on what"
    assert first["line"].endswith(", CPU")
    assert [device["device"] for device in job.devices or ()] == ["cpu"]


def it_is_measured_with_augmentation_too(home: Home, model_id: str, dataset_id: str) -> None:
    tta = {"scales": [1.0, 0.5], "flips": ["none", "lr"]}
    job = home.wait_for(evaluation_of(home, model_id, dataset_id, tta=tta), timeout_s=120)
    assert job.status == JobStatus.SUCCEEDED, home.logs()
    evaluation, model = get(home, Evaluation, job_id=job.id), get(home, Model, id=model_id)
    assert evaluation.tta["passes"] == [{"scale": 1.0, "flip": "none"}, {"scale": 0.5, "flip": "lr"}]
    for name in ("ap", "ap50", "ap75"):
        assert evaluation.tta["plain"][name] == model.metrics[name]
        assert evaluation.tta["augmented"][name] == evaluation.metrics[name]
        assert evaluation.tta["difference"][name] == pytest.approx(
            evaluation.metrics[name] - model.metrics[name]
        )
    assert (job.result or {})["tta"] == evaluation.tta
    assert "test-time augmentation: 2 passes: 1, 0.5 lr" in home.logs()


def nothing_waits_and_nobody_owns_anything(home: Home) -> None:
    with home.sessions() as session:
        assert session.scalar(select(func.count()).select_from(OutboxRow)) == 0
        owned = select(func.count()).select_from(Job).where(Job.lease_until.is_not(None))
        assert session.scalar(owned) == 0


@pytest.mark.parametrize(
    ("archive", "code"),
    [
        (zip_of({"../outside.jpg": b"x"}), "archive_path"),
        (zip_of({"readme.txt": b"no pictures"}), "dataset_unreadable"),
        (b"PK\x03\x04 and then nothing", "archive_damaged"),
    ],
)
def test_an_archive_that_is_none_is_rejected_with_a_report(house: Home, archive: bytes, code: str) -> None:
    dataset_id, job_id = imported(house, archive)
    job = house.wait_for(job_id)
    assert job.status == JobStatus.FAILED
    assert job.failure is not None
    assert (job.failure["code"], job.failure["retryable"]) == (code, False)
    dataset = get(house, Dataset, id=dataset_id)
    assert dataset.status == "rejected"
    report = stored_json(house, f"{dataset.storage_prefix}/report.json")
    assert report["counts"] == {code: 1}
    assert report["findings"][0]["message"] == job.failure["message"]


def test_a_rejected_archive_keeps_all_that_was_found_in_it(house: Home) -> None:
    files = {"data.yaml": b"names: [cat]", "images/gone.txt": b"0 .5 .5 .1 .1"}
    files |= {"images/a.jpg": b"no picture", "images/a.txt": b"0 .5 .5 .1 .1\n7 .5 .5 .1 .1\nx"}
    dataset_id, job_id = imported(house, zip_of(files))

    job = house.wait_for(job_id)

    assert job.failure is not None
    assert job.failure["code"] == "dataset_unreadable"
    for words in ("Looked for", "Seen: 4 files (2 .txt, 1 .yaml, 1 .jpg)", "0 of them usable"):
        assert words in job.failure["message"]
    prefix = get(house, Dataset, id=dataset_id).storage_prefix
    report = stored_json(house, f"{prefix}/report.json")
    reason, *found = report["findings"]
    assert (reason["code"], reason["file"], reason["message"]) == (
        "dataset_unreadable",
        "",
        job.failure["message"],
    )
    assert {(finding["code"], finding["file"], finding["where"]) for finding in found} == {
        ("class_unknown", "images/a.txt", "line 2"),
        ("label_invalid", "images/a.txt", "line 3"),
        ("image_missing", "images/gone.txt", ""),
        ("image_unsupported", "images/a.jpg", ""),
    }
    assert report["counts"] == {"dataset_unreadable": 1} | {finding["code"]: 1 for finding in found}


def test_a_job_that_always_crashes_fails_and_others_go_on(house: Home) -> None:
    poisoned, poison = imported(house, tiny_archive(), classes={"no such rule": []})
    _, wholesome = imported(house, tiny_archive(), seed=1)
    assert house.wait_for(wholesome).status == JobStatus.SUCCEEDED
    job = house.wait_for(poison)
    assert (job.status, job.no_progress) == (JobStatus.FAILED, protocol.MAX_NO_PROGRESS)
    assert job.failure is not None
    assert job.failure["code"] == "internal_error"
    assert "TypeError" not in json.dumps(job.failure), "what went wrong inside is for the log"
    assert "TypeError" in house.logs()
    assert get(house, Dataset, id=poisoned).status == "rejected"


def import_config(home: Home, content: bytes, **options: Any) -> dict[str, Any]:
    key = f"uploads/{new_id()}/weights"
    home.storage.write(key, io.BytesIO(content))
    sha256 = hashlib.sha256(content).hexdigest()
    given = {"architecture": None, "classes": None, "input_convention": None, **options}
    return {"upload_key": key, "file_name": "weights.pth", "sha256": sha256, **given}


def weights_of_three_classes(architecture: str) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": create_model(architecture, num_classes=3).state_dict()}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("architecture", ["yolox-nano", "nanodet-plus-m"])
def test_weights_become_a_model(house: Home, architecture: str) -> None:
    options = {"classes": ["a", "b", "c"], "input_convention": "yolox-legacy"}
    config = import_config(house, weights_of_three_classes(architecture), **options)
    job = house.wait_for(house.queue_job(JobKind.MODEL_IMPORT, name="mine", config=config), timeout_s=120)
    assert job.status == JobStatus.SUCCEEDED, house.logs()
    assert job.result is not None
    model = get(house, Model, id=job.result["model_id"])
    assert (model.name, model.origin, model.metrics) == ("mine", "imported", None)
    assert (model.architecture, model.classes) == (architecture, ["a", "b", "c"])
    with torch.device("meta"):
        served = create_served_model(architecture, num_classes=3)
    assert model.parameters == sum(each.numel() for each in served.parameters())
    assert model.record["input_convention"]["order"] == "rgb"
    assert model.provenance["file_sha256"] == config["sha256"]
    wait_until(lambda: not house.storage.exists(config["upload_key"]), timeout_s=10)


def test_weights_that_are_none_are_refused(house: Home) -> None:
    config = import_config(house, b"no weights at all")
    job = house.wait_for(house.queue_job(JobKind.MODEL_IMPORT, config=config), timeout_s=60)
    assert job.status == JobStatus.FAILED
    assert job.failure is not None
    assert job.failure["code"] == "weights_unusable"
