"""Mosec: one worker class, `num` processes of it behind a server written in Rust.

https://mosecorg.github.io/mosec/reference/interface.html: `append_worker(num=…)`; bytes come and go through
`deserialize` and `serialize`.
"""

from __future__ import annotations

import os

from mosec import Server, ValidationError, Worker

from detection.errors import ImageError


class DetectWorker(Worker):
    """Bytes of a picture in, JSON out."""

    def __init__(self) -> None:
        from tests.benchmarks.peers.detector import load_detector  # only here: no other process needs torch

        self.detector = load_detector()

    def deserialize(self, data: bytes) -> bytes:
        return bytes(data)  # it comes as a bytearray

    def forward(self, data: bytes) -> bytes:
        try:
            return self.detector.look(data)
        except ImageError as error:
            raise ValidationError(str(error)) from None

    def serialize(self, data: bytes) -> bytes:
        return data


if __name__ == "__main__":
    server = Server()
    server.append_worker(DetectWorker, num=int(os.environ["BENCH_WORKERS"]), route="/detect")
    server.run()
