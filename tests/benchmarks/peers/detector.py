"""What every peer serves: Harrier's own pre- and post-processing around ONNX Runtime, or around eager torch.

A peer tells by the environment what to load: `BENCH_MODEL` is the model's folder, `BENCH_THREADS` how many
threads compute one picture; without it everything is as its library has it by default, which is all cores.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from detection.inference.predictor import DetectOptions, Prediction, Predictor
from detection.model_files import ONNX_FILE, WEIGHTS_FILE, read_record
from detection.model_record import ModelRecord
from detection.models.networks import load_served_network

OPTIONS = DetectOptions()


class PlainOnnxRuntime:
    """A session as ONNX Runtime makes it when nothing is asked for; spinning threads included."""

    device = torch.device("cpu")

    def __init__(self, file: Path, threads: int | None) -> None:
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        found = self._session.run(None, {"images": images_BCHW.numpy()})
        return tuple(torch.from_numpy(each) for each in found)


class EagerTorch:
    """The module as it was trained, in evaluation mode and nothing more."""

    device = torch.device("cpu")

    def __init__(self, file: Path, record: ModelRecord) -> None:
        network = load_served_network(
            record.architecture, num_classes=len(record.classes), state=load_file(file)
        )
        self._network = network.eval()

    @torch.no_grad()
    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._network.predict(images_BCHW))


class Detector:
    """Bytes of a picture in, bytes of the answer out."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._own = threading.local()

    def look(self, picture: bytes) -> bytes:
        """Return the JSON of what is in a picture.

        Raises:
            ImageError: it cannot be used.
        """
        prepared = self._predictor.prepare(picture, out=self._buffer())
        found = self._predictor.finish(prepared, self._predictor.infer([prepared])[0], OPTIONS)
        return msgspec.json.encode({"images": [_image(found, self._predictor.record.classes)]})

    def _buffer(self) -> NDArray[np.float32]:
        """Return this thread's input, as Harrier's own engine keeps one for each of its threads."""
        if not hasattr(self._own, "buffer"):
            self._own.buffer = np.empty((3, *self._predictor.record.input_size_hw), np.float32)
        buffer: NDArray[np.float32] = self._own.buffer
        return buffer


def load_detector(backend: str = "onnxruntime") -> Detector:
    """Load what the environment names, and look at nothing once."""
    folder, threads = Path(os.environ["BENCH_MODEL"]), os.environ.get("BENCH_THREADS")
    if threads:
        torch.set_num_threads(int(threads))
        cv2.setNumThreads(int(threads))
    record = read_record(folder)
    loaded = (
        EagerTorch(folder / WEIGHTS_FILE, record)
        if backend == "eager"
        else PlainOnnxRuntime(folder / ONNX_FILE, int(threads) if threads else None)
    )
    predictor = Predictor(loaded, record)
    predictor.warm_up()
    return Detector(predictor)


def _image(found: Prediction, classes: tuple[str, ...]) -> dict[str, Any]:
    seen = found.detections
    rows = zip(seen.boxes_N4.tolist(), seen.scores_N.tolist(), seen.labels_N.tolist(), strict=True)
    return {
        "width": found.width,
        "height": found.height,
        "detections": [
            {
                "label": classes[class_id],
                "class_id": class_id,
                "score": round(score, 4),
                "box": {"x1": round(x1, 2), "y1": round(y1, 2), "x2": round(x2, 2), "y2": round(y2, 2)},
            }
            for (x1, y1, x2, y2), score, class_id in rows
        ],
    }
