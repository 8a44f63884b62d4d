"""The bound: the same decode, letterbox, backend and post-processing in a loop in one process, without HTTP.

`python -m tests.benchmarks.bound FOLDER EXECUTOR PICTURE…` loads the model and then obeys its input, a line
each: `busy SECONDS` runs one stream per core with one thread each, `full SECONDS` has as many callers for
them as Harrier, `idle TIMES` takes all pictures so many times, one after the other, with all threads, as
Harrier's default is.
Each line is answered by one of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from app.engine.device import num_callers, num_cores
from detection.devices import CPU
from detection.heap import keep_freed_memory
from detection.inference.backends import BACKENDS
from detection.inference.predictor import DetectOptions, Predictor
from detection.inference.serving import read_executor
from detection.model_files import read_record
from tests.benchmarks.started import NotStartedError

ROOT = Path(__file__).resolve().parents[2]
CORES = num_cores()
WARM_UP_S = 0.5
OPTIONS = DetectOptions()
READY = "ready\n"


class Bound:
    """The bare work, with the threads that Harrier gives it."""

    def __init__(self, folder: Path, executor: str, pictures: list[bytes]) -> None:
        self._pictures, self._own = pictures, threading.local()
        self._wide = load(folder, executor, threads=CORES)
        self._narrow = load(folder, executor, threads=1)

    def busy(self, seconds: float) -> dict[str, Any]:
        """Return pictures per second of all streams together."""
        return self._side_by_side(CORES, seconds)

    def full(self, seconds: float) -> dict[str, Any]:
        """Return the same with callers that wait while a stream computes for another."""
        return self._side_by_side(num_callers(), seconds)

    def idle(self, times: float) -> dict[str, Any]:
        """Return milliseconds of each picture, one after the other; each is looked at equally often."""
        self._look_until(self._wide, time.perf_counter() + WARM_UP_S)
        return {"times_ms": [self._time(self._wide, picture) for picture in self._pictures * int(times)]}

    def _side_by_side(self, callers: int, seconds: float) -> dict[str, Any]:
        began = time.perf_counter() + WARM_UP_S
        counts = [0] * callers
        streams = [
            threading.Thread(target=self._stream, args=(number, began, began + seconds, counts))
            for number in range(callers)
        ]
        for stream in streams:
            stream.start()
        for stream in streams:
            stream.join()
        return {"per_s": sum(counts) / seconds}

    def _stream(self, number: int, began: float, end: float, counts: list[int]) -> None:
        offset = number * len(self._pictures) // len(counts)
        self._look_until(self._narrow, began, offset)
        counts[number] = len(self._look_until(self._narrow, end, offset))

    def _look_until(self, predictor: Predictor, end: float, offset: int = 0) -> list[float]:
        times_ms: list[float] = []
        while time.perf_counter() < end:
            picture = self._pictures[(offset + len(times_ms)) % len(self._pictures)]
            times_ms.append(self._time(predictor, picture))
        return times_ms

    def _time(self, predictor: Predictor, picture: bytes) -> float:
        started = time.perf_counter()
        prepared = predictor.prepare(picture, out=self._buffer())
        predictor.finish(prepared, predictor.infer([prepared])[0], OPTIONS)
        return (time.perf_counter() - started) * 1000

    def _buffer(self) -> NDArray[np.float32]:
        """Return the memory that this thread's pictures are fitted into."""
        if not hasattr(self._own, "buffer"):
            self._own.buffer = np.empty((3, *self._wide.record.input_size_hw), np.float32)
        buffer: NDArray[np.float32] = self._own.buffer
        return buffer


def load(folder: Path, executor: str, *, threads: int | None) -> Predictor:
    """Load the model as the engine does, and let it look at nothing once."""
    backend, precision = read_executor(executor)
    record = read_record(folder)
    loaded = BACKENDS[backend].load(folder, record, device=CPU, threads=threads, precision=precision)
    predictor = Predictor(loaded, record)
    predictor.warm_up()
    return predictor


class BoundProcess:
    """That program as a child, which waits without a sound between two questions."""

    def __init__(self, folder: Path, executor: str, pictures: list[str]) -> None:
        self.executor = executor
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.bound", str(folder), executor, *pictures],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != READY:
            raise NotStartedError(f"the bound with {executor} did not start")

    def ask(self, what: str, how_much: float) -> dict[str, Any]:
        """Return what it measured: `busy`, `full` or `idle`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what} {how_much}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def stop(self) -> None:
        """End it by the end of its input."""
        self._process.communicate(timeout=30)


@contextmanager
def bound_process(folder: Path, executor: str, pictures: list[str]) -> Iterator[BoundProcess]:
    """Start it, and leave nothing of it."""
    running = BoundProcess(folder, executor, pictures)
    try:
        yield running
    finally:
        running.stop()


def main() -> None:
    """Load, then measure what the input says until it ends."""
    keep_freed_memory()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)  # what is left to torch is small; the backend has threads of its own
    folder, executor, *files = sys.argv[1:]
    bound = Bound(Path(folder), executor, [Path(file).read_bytes() for file in files])
    sys.stdout.write(READY)
    sys.stdout.flush()
    measures = {"busy": bound.busy, "full": bound.full, "idle": bound.idle}
    for line in sys.stdin:
        what, how_much = line.split()
        print(json.dumps(measures[what](float(how_much))), flush=True)


if __name__ == "__main__":
    main()
