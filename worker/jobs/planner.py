"""Measures the ways to serve a model on one device: how fast each is, what AP it keeps, what it finds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import torch

from detection.analysis.serving_speed import Speed, measure_speed
from detection.data.records import ImageRecord
from detection.detections import Detections
from detection.errors import BackendError
from detection.evaluation.coco import measure_detections
from detection.evaluation.evaluate import ReadPicture, detect_in_all
from detection.inference.agreement import TOLERANCES, Agreement, agreement_in_all
from detection.inference.backends import BACKENDS
from detection.inference.out_of_memory import ALLOCATION_ERRORS, is_out_of_memory
from detection.inference.plan import PlanRow, candidate_shapes, executors_of
from detection.inference.predictor import Predictor
from detection.inference.serving import Precision, ServingShape, executor_name
from detection.model_files import read_record
from detection.training.reporting import ALL_SEEN
from worker.attempt import Attempt
from worker.pace import Pace

REFERENCE = "eager", Precision.FP32
MOST_TIMED = 32
"""Different pictures that are timed, in memory."""
Executor = tuple[str, Precision]


@dataclass(frozen=True, slots=True)
class Truth:
    """What one backend in one precision finds, and how it does alone, with all cores."""

    alone: Speed
    ap: float | None
    agreement: Agreement


class Planner:
    """Measures the ways to serve one model on one device."""

    def __init__(
        self,
        attempt: Attempt,
        folder: Path,
        device: torch.device,
        images: Sequence[ImageRecord],
        read: ReadPicture,
    ) -> None:
        """Measure the model in `folder` on pictures with its own class indices."""
        self._attempt, self._folder, self._device = attempt, folder, device
        self._images, self._read = images, read
        self._timed = [read(image) for image in images[:MOST_TIMED]]
        self._seconds = float(attempt.job.config["seconds"])
        self._cores = len(os.sched_getaffinity(0))
        self._reference: list[Detections] = []
        # as the engine does, beside the threads of the backends
        cv2.setNumThreads(1)
        if device.type == "cpu":
            torch.set_num_threads(1)

    def rows(self) -> list[PlanRow]:
        """Measure; the reference comes first, because all others are compared with it."""
        executors = self._executors()
        shapes = candidate_shapes(
            executors,
            on_cpu=self._device.type == "cpu",
            cores=self._cores,
            side_by_side=lambda backend: BACKENDS[backend].side_by_side,
        )
        progress = PlanProgress(self._attempt, len(executors) + len(shapes))
        self._attempt.report.stage("measuring")
        rows: list[PlanRow] = []
        reference: Truth | None = None
        for executor in executors:
            loaded = Predictors(partial(self._predictor, executor))
            own = [each for each in shapes if (each.backend, each.precision) == executor]
            try:
                truth = self._find(executor, loaded[self._cores])
            except BackendError as error:
                if reference is None:
                    raise
                # Built into a library, as TensorRT into ONNX Runtime: that it does not work shows only now.
                self._attempt.report.line(f"{executor_name(*executor)} is not measured: {error}")
                progress.did(1 + len(own))
                continue
            reference = reference or truth
            progress.did(1)
            for shape in own:
                busy = self._time(shape, loaded, truth)
                rows += [] if busy is None else [self._row(shape, busy, truth, reference)]
                progress.did(1)
        return rows

    def _executors(self) -> list[Executor]:
        names = sorted(BACKENDS, key=lambda name: name != REFERENCE[0])
        readable = [name for name in names if (self._folder / BACKENDS[name].file.name).exists()]
        return executors_of({name: BACKENDS[name].precisions(self._device) for name in readable})

    def _predictor(self, executor: Executor, threads: int) -> Predictor:
        backend, precision = executor
        record = read_record(self._folder)
        loaded = BACKENDS[backend].load(
            self._folder,
            record,
            device=self._device,
            threads=threads,
            precision=precision,
            cache=self._attempt.settings.cache / "engines",
        )
        return Predictor(loaded, record, max_pixels=self._attempt.settings.max_image_pixels)

    def _find(self, executor: Executor, predictor: Predictor) -> Truth:
        control = self._attempt.control
        found = detect_in_all(predictor, self._images, self._read, saw=lambda _: control.pulse()) or []
        self._reference = self._reference or found
        agreement = agreement_in_all(self._reference, found, TOLERANCES[executor[1]])
        metrics = measure_detections(self._images, found, predictor.record.classes)
        alone = measure_speed(predictor, self._timed, seconds=self._seconds, ran=control.pulse)
        self._attempt.report.line(
            f"{executor_name(*executor)}: AP {_shown(metrics.ap)}, {agreement.same} of {agreement.boxes}"
            f" boxes as the reference has them, alone {alone.p50_ms:.1f} ms"
        )
        return Truth(alone, metrics.ap, agreement)

    def _time(self, shape: ServingShape, loaded: Predictors, truth: Truth) -> Speed | None:
        """Return how fast a shape is; None when it needs more memory than the device has."""
        if (shape.streams, shape.threads, shape.batch_size) == (1, self._cores, 1):
            return truth.alone
        try:
            return measure_speed(
                loaded[shape.threads],
                self._timed,
                streams=shape.streams,
                batch_size=shape.batch_size,
                seconds=self._seconds,
                ran=self._attempt.control.pulse,
            )
        except ALLOCATION_ERRORS as error:
            if not is_out_of_memory(error):
                raise
            self._attempt.report.line(f"{shape.executor}: a batch of {shape.batch_size} does not fit")
            return None

    def _row(self, shape: ServingShape, busy: Speed, truth: Truth, reference: Truth) -> PlanRow:
        row = _row(shape, busy, truth, reference)
        self._attempt.report.line(
            f"{shape}: {row.pictures_per_s:.1f} pictures/s, p50 {row.p50_ms:.1f} ms, p95 {row.p95_ms:.1f} ms"
        )
        return row


class Predictors(dict[int, Predictor]):
    """One backend in one precision, loaded once for each number of threads."""

    def __init__(self, load: Callable[[int], Predictor]) -> None:
        super().__init__()
        self._load = load

    def __missing__(self, threads: int) -> Predictor:
        loaded = self[threads] = self._load(threads)
        return loaded


class PlanProgress:
    """Shows how many of the measurements are done, and how long the others will take at the same pace."""

    def __init__(self, attempt: Attempt, steps: int) -> None:
        self._attempt, self._steps, self._pace, self._done = attempt, steps, Pace(), 0

    def did(self, steps: int) -> None:
        self._done += steps
        self._attempt.control.pulse()
        self._attempt.report.progress(
            {"step": self._done, "steps": self._steps, "fraction": ALL_SEEN * self._done / self._steps},
            eta_s=self._pace.eta_s(self._done, self._steps - self._done),
        )


def _row(shape: ServingShape, busy: Speed, truth: Truth, reference: Truth) -> PlanRow:
    tolerance = TOLERANCES[shape.precision]
    return PlanRow(
        shape=shape,
        pictures_per_s=busy.pictures_per_s,
        p50_ms=busy.p50_ms,
        p95_ms=busy.p95_ms,
        alone_p50_ms=truth.alone.p50_ms,
        alone_p95_ms=truth.alone.p95_ms,
        ap=truth.ap,
        ap_drop=None if truth.ap is None or reference.ap is None else reference.ap - truth.ap,
        same_boxes=truth.agreement.share,
        agrees=truth is reference or truth.agreement.is_within(tolerance),
    )


def _shown(ap: float | None) -> str:
    return "unknown" if ap is None else f"{ap:.4f}"
