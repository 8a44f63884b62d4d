"""Two models beside each other: how good they are on the same pictures, how fast, and how large."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from detection.analysis.latency import median_latencies_ms
from detection.data.records import ImageRecord, Split
from detection.evaluation.coco import CocoMetrics, measure_detections
from detection.evaluation.curves import EvaluationDetails, detail_detections
from detection.evaluation.evaluate import detect_in_all
from detection.inference.backends import BACKENDS, Backend
from detection.inference.predictor import DetectOptions, Predictor
from detection.model_files import ONNX_FILE, WEIGHTS_FILE, read_record
from detection.model_record import ModelRecord
from detection.training.progress import Seen
from detection.training.state import StopRequest
from worker.attempt import Attempt
from worker.control import IMMEDIATE, StoppedError
from worker.jobs.measuring import matched_ids, with_ids
from worker.pictures import StoredDataset

CPU_BACKEND, REFERENCE_BACKEND = "onnxruntime", "eager"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of a model on a split."""

    metrics: CocoMetrics
    details: EvaluationDetails | None


@dataclass(frozen=True, slots=True)
class Measuring:
    """The pictures that both models are measured on, and the device that does it."""

    attempt: Attempt
    dataset: StoredDataset
    split: Split
    device: torch.device

    def images(self, record: ModelRecord) -> Sequence[ImageRecord]:
        """Return the pictures with the class indices of a model."""
        ids = matched_ids(self.dataset.record.classes, record.classes)
        return [with_ids(image, ids) for image in self.dataset.record.of_split(self.split)]

    def measure(self, folder: Path, *, saw: Seen) -> Measurement:
        """Return the metrics of the model in a folder, as it would serve.

        Raises:
            StoppedError: somebody wants the job to stop.
        """
        record = read_record(folder)
        predictor = Predictor.from_folder(
            folder, device=self.device, max_pixels=self.attempt.settings.max_image_pixels
        )
        images, control = self.images(record), self.attempt.control
        found = detect_in_all(
            predictor,
            images,
            self.dataset.pictures,
            interrupted=lambda: control.request() in IMMEDIATE,
            saw=saw,
        )
        if found is None:
            raise StoppedError(control.request() or StopRequest.DRAIN)
        threshold = DetectOptions().score_threshold
        return Measurement(
            measure_detections(images, found, record.classes),
            detail_detections(images, found, record.classes, score_threshold=threshold),
        )


def latencies_ms(
    folders: Mapping[str, Path], device: torch.device, *, ran: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Return by backend, and by the names of the folders, the median time for one picture."""
    latencies = {}
    for name, on in ((CPU_BACKEND, torch.device("cpu")), (REFERENCE_BACKEND, device)):
        loaded: dict[str, Backend] = {}
        for which, folder in folders.items():
            record = read_record(folder)
            loaded[which] = BACKENDS[name].load(folder, record, device=on, threads=None)
        latencies[name] = median_latencies_ms(loaded, record.input_size_hw, ran=ran)
    return latencies


def file_bytes(folders: Mapping[str, Path]) -> dict[str, dict[str, int]]:
    """Return by format, and by the names of the folders, how large the files are."""
    formats = {"safetensors": WEIGHTS_FILE, "onnx": ONNX_FILE}
    return {
        name: {which: (folder / file).stat().st_size for which, folder in folders.items()}
        for name, file in formats.items()
    }
