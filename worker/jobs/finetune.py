"""Let a pruned detector learn again for some epochs, as a training does, before it is published."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import save_file

from detection.devices import device_name
from detection.errors import CheckpointError
from detection.families.reading import read_config
from detection.models.detector import Detector
from detection.models.widths import ARCHITECTURE
from detection.training.job import TrainingJob
from detection.training.progress import Seen
from detection.training.recipes import settle
from detection.training.run import open_checkpoints, train
from detection.training.snapshot import load_evaluated_weights
from detection.training.state import StopReason, StopRequest
from detection.training.tasks.detect import DetectTraining
from worker.attempt import Attempt
from worker.callbacks import TrainingReporter
from worker.control import StoppedError
from worker.jobs.device import take_device
from worker.pictures import StoredDataset
from worker.run_folder import take_over
from worker.stored_model import StoredModel


class FineTuning:
    """The training of one attempt; it goes on from the last checkpoint of the attempts before."""

    def __init__(self, attempt: Attempt, model: StoredModel, dataset: StoredDataset) -> None:
        self._attempt, self._model, self._dataset = attempt, model, dataset
        self._training: TrainingJob | None = None

    def train(self, pruned: Detector, *, keep_zeros: bool) -> tuple[Detector, Seen]:
        """Return the detector with the best weights, and who counts the pictures of its measurement.

        Raises:
            StoppedError: somebody wants the job to stop; what was learnt is saved.
        """
        attempt = self._attempt
        training = self._training = self._job(pruned, keep_zeros=keep_zeros)
        reporter = TrainingReporter(attempt.report, attempt.lease, training.folder)
        result = train(training, reporter=reporter, requests=attempt.control.request)
        attempt.report.flush()
        if not result.reason.publishes:
            cancelled = result.reason is StopReason.CANCELLED
            raise StoppedError(StopRequest.CANCEL if cancelled else StopRequest.DRAIN)
        payload = open_checkpoints(training, log=attempt.report.line).load_best()
        if payload is None:
            raise CheckpointError("the fine-tuning has no checkpoint; there is nothing to publish")
        detector = DetectTraining().build_network(training).eval()
        load_evaluated_weights(payload, detector)
        detector.drop_training_parts()
        return detector, result.saw

    def provenance(self) -> dict[str, Any]:
        """Return what the fine-tuning adds to the model's provenance."""
        if self._training is None:
            return {}
        config = self._training.config
        return {"config": asdict(config), "seed": config.seed, "epochs_done": config.epochs}

    def forget(self) -> None:
        """Remove the checkpoints: nothing goes on from here."""
        if self._training is not None:
            shutil.rmtree(self._training.folder.parent, ignore_errors=True)

    def _job(self, pruned: Detector, *, keep_zeros: bool) -> TrainingJob:
        attempt, record = self._attempt, self._model.record
        start = attempt.scratch / "start.safetensors"
        save_file(pruned.state_dict(), start, metadata={ARCHITECTURE: record.architecture})
        wanted = attempt.job.config["training"]
        device = device_name(take_device(attempt))
        config = settle(read_config(wanted), device=device, threads=torch.get_num_threads())
        # Every later attempt must compute in the same way; so it is stored before there is a checkpoint.
        settled = {**wanted, "precision": config.precision.value, "threads": config.threads}
        attempt.report.config({**attempt.job.config, "training": settled})
        attempt.report.flush()
        return TrainingJob(
            config=config,
            dataset=self._dataset.record,
            read=self._dataset.pictures,
            folder=take_over(attempt.settings.checkpoints / attempt.job.id, attempt.job.fence),
            initial_weights=start,
            convention=record.input_convention,
            keep_zeros=keep_zeros,
        )
