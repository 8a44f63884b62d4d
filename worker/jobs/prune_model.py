"""Prune a model: remove weights or channels, let the rest learn again if wanted, and measure the cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session
from torch import Tensor

from detection.analysis.complexity import Complexity, count_complexity
from detection.analysis.modules import find_modules
from detection.analysis.sparsity import sparsity, zero_fraction
from detection.data.records import ImageRecord, Split
from detection.deploy.package import CHECKED_PICTURES, ModelFile, write_model
from detection.environment import describe_environment
from detection.model_files import ONNX_FILE
from detection.models.detector import Detector
from detection.training.progress import Seen
from worker.attempt import Attempt
from worker.jobs.compared import Measurement, Measuring, file_bytes, latencies_ms
from worker.jobs.device import begin_on_device
from worker.jobs.finetune import FineTuning
from worker.jobs.measuring import MeasuringProgress
from worker.jobs.networks import load_detector
from worker.jobs.pruners import PRUNERS, calibration_pictures
from worker.jobs.published import NewModel, evaluation_row, publish_model
from worker.pictures import StoredDataset, open_dataset
from worker.stored_model import StoredModel, as_folder, open_graph, open_model

BEFORE, AFTER = "before", "after"
INHERITED = ("dataset_id", "dataset_sha256", "dataset_content_sha256")
"""What the provenance of a model says that is true of the pruned one, too."""


def run(attempt: Attempt) -> None:
    config = attempt.job.config
    if config["training"] is not None:
        attempt.control.obey_yourself()
    model = open_model(attempt)
    dataset = None if attempt.job.dataset_id is None else open_dataset(attempt)
    Pruning(attempt, model, dataset).run()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A network that is ready to be published, and what counts the pictures of its measurement."""

    detector: Detector
    saw: Seen
    provenance: Mapping[str, Any]
    done: Callable[[], None]
    """Called when the model is published."""


class Pruning:
    """One attempt at pruning one model."""

    def __init__(self, attempt: Attempt, model: StoredModel, dataset: StoredDataset | None) -> None:
        self._attempt, self._model, self._dataset = attempt, model, dataset
        self._config = attempt.job.config
        self._device = begin_on_device(attempt)
        self._measuring = None
        if dataset is not None:
            self._measuring = Measuring(attempt, dataset, Split(self._config["split"]), self._device)

    def run(self) -> None:
        attempt, record = self._attempt, self._model.record
        original = load_detector(self._model)
        folders = {BEFORE: self._original_folder(), AFTER: attempt.scratch / "pruned"}
        progress = self._progress()
        before = self._measure(folders[BEFORE], progress)
        outcome = self._pruned(progress)
        attempt.report.stage("publishing")
        folders[AFTER].mkdir()
        files = write_model(outcome.detector, record, folders[AFTER], pictures=self._pictures())
        after = self._measure(folders[AFTER], outcome.saw)
        attempt.report.stage("profiling")
        result = {
            **self._compared(original, outcome.detector),
            "ap": self._ap(before, after),
            "latency_ms": latencies_ms(folders, self._device, ran=attempt.control.pulse),
            "file_bytes": file_bytes(folders),
        }
        self._tell(result)
        self._publish(outcome, files, folders[AFTER], after, result)
        outcome.done()

    def _progress(self) -> Seen:
        """Return what counts the pictures of both measurements; a fine-tuning counts its own."""
        if self._measuring is None or self._config["training"] is not None:
            return lambda num_images: self._attempt.control.pulse()
        num_images = len(self._measuring.images(self._model.record))
        return MeasuringProgress(self._attempt, 2 * num_images).saw

    def _measure(self, folder: Path, saw: Seen) -> Measurement | None:
        if self._measuring is None:
            return None
        self._attempt.report.stage("evaluating")
        return self._measuring.measure(folder, saw=saw)

    def _pruned(self, progress: Seen) -> Outcome:
        """Prune, and fine-tune if that is wanted."""
        config, attempt = self._config, self._attempt
        attempt.report.stage("pruning")
        pruned = load_detector(self._model).to(self._device)
        prune = PRUNERS[config["scope"]]
        attempt.report.line(prune(pruned, config["amount"], self._calibration()))
        pruned.cpu()
        if config["training"] is None or self._dataset is None:
            return Outcome(pruned, self._second_half(progress), {}, lambda: None)
        tuning = FineTuning(attempt, self._model, self._dataset)
        detector, saw = tuning.train(pruned, keep_zeros=config["scope"] != "channels")
        return Outcome(detector, saw, tuning.provenance(), tuning.forget)

    def _calibration(self) -> list[Tensor]:
        """Return pictures for the norms behind channels that go; single weights leave them as they are."""
        if self._dataset is None or self._config["scope"] != "channels":
            return []
        split, record = Split(self._config["split"]), self._model.record
        return calibration_pictures(self._attempt, self._dataset, split, record, self._device)

    def _second_half(self, progress: Seen) -> Seen:
        measured = 0 if self._measuring is None else len(self._measuring.images(self._model.record))
        return lambda num_images: progress(measured + num_images)

    def _original_folder(self) -> Path:
        folder = as_folder(self._model, self._attempt.scratch / "original")
        (folder / ONNX_FILE).symlink_to(open_graph(self._attempt, self._model))
        return folder

    def _pictures(self) -> list[bytes]:
        """Return a few pictures to compare the exported graph on."""
        if self._dataset is None:
            return []
        shown: list[ImageRecord] = list(self._dataset.record.of_split(Split(self._config["split"])))
        return [self._dataset.pictures(image) for image in shown[:CHECKED_PICTURES]]

    def _compared(self, original: Detector, pruned: Detector) -> dict[str, Any]:
        """Return what was removed, over all and layer by layer."""
        size_hw = self._model.record.input_size_hw
        costs = {BEFORE: count_complexity(original, size_hw), AFTER: count_complexity(pruned, size_hw)}

        def both(of: Callable[[Complexity], float]) -> dict[str, float]:
            return {name: of(each) for name, each in costs.items()}

        wanted = ("scope", "amount", "finetune_epochs")
        return {
            **{name: self._config[name] for name in wanted},
            "sparsity": {BEFORE: sparsity(original), AFTER: sparsity(pruned)},
            "parameters": both(lambda each: each.parameters),
            "gflops": both(lambda each: each.gflops),
            "layers": _layers(original, pruned),
        }

    def _ap(self, before: Measurement | None, after: Measurement | None) -> dict[str, Any]:
        measured = before is not None and after is not None
        return {
            BEFORE: None if before is None else before.metrics.ap,
            AFTER: None if after is None else after.metrics.ap,
            "dataset_id": self._attempt.job.dataset_id,
            "split": self._config["split"] if measured else None,
            "unmeasured": None if measured else self._config["unmeasured"],
        }

    def _tell(self, result: Mapping[str, Any]) -> None:
        for name in ("parameters", "gflops", "sparsity", "ap"):
            pair = result[name]
            self._attempt.report.line(f"{name}: {_number(pair[BEFORE])} before, {_number(pair[AFTER])} after")
        if result["ap"]["unmeasured"]:
            self._attempt.report.line(f"the AP was not measured: {result['ap']['unmeasured']}")
        for backend, pair in result["latency_ms"].items():
            self._attempt.report.line(
                f"{backend}: {pair[BEFORE]:.1f} ms a picture before, {pair[AFTER]:.1f} ms after"
            )

    def _publish(
        self,
        outcome: Outcome,
        files: tuple[ModelFile, ...],
        folder: Path,
        after: Measurement | None,
        result: Mapping[str, Any],
    ) -> None:
        attempt, record = self._attempt, self._model.record
        metrics = None if after is None else {**after.metrics.as_json(), "split": self._config["split"]}
        inherited = {
            name: self._model.provenance[name] for name in INHERITED if name in self._model.provenance
        }
        own = {} if self._dataset is None or not outcome.provenance else _of_dataset(attempt, self._dataset)
        what = ("scope", "amount", "sparsity", "finetune_epochs")
        new = NewModel(
            name=self._config["name"],
            origin="pruned",
            record=record,
            complexity=count_complexity(outcome.detector, record.input_size_hw),
            metrics=metrics,
            provenance={
                **inherited,
                **own,
                **outcome.provenance,
                "init_model_id": self._model.id,
                "pruned": {name: result[name] for name in what},
                "device": str(self._device),
                **describe_environment((self._device,)),
            },
            folder=folder,
            files=files,
        )
        add_rows = partial(self._add_evaluation, after, metrics)
        publish_model(attempt, new, add_rows=add_rows, result=result)

    def _add_evaluation(
        self,
        after: Measurement | None,
        metrics: Mapping[str, Any] | None,
        session: Session,
        model_id: str,
    ) -> None:
        if after is None or metrics is None or self._dataset is None:
            return
        session.add(
            evaluation_row(
                self._attempt,
                model_id,
                dataset_sha256=self._dataset.sha256,
                split=self._config["split"],
                metrics=metrics,
                details=after.details,
            )
        )


def _layers(original: Detector, pruned: Detector) -> list[dict[str, Any]]:
    """Return for each convolution its channels before and after, and how much of it is zero."""
    before = {each.name: each.module for each in find_modules(original)}
    return [
        {
            "name": each.name,
            "channels_before": before[each.name].get_parameter("weight").shape[0],
            "channels_after": each.module.get_parameter("weight").shape[0],
            "sparsity": zero_fraction([each.module.get_parameter("weight")]),
        }
        for each in find_modules(pruned)
    ]


def _of_dataset(attempt: Attempt, dataset: StoredDataset) -> dict[str, Any]:
    return {"dataset_id": attempt.job.dataset_id, "dataset_sha256": dataset.sha256}


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
