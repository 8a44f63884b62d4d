"""LitServe: one API class; `workers_per_device` copies of the model in processes of their own.

https://lightning.ai/docs/litserve/api-reference/litapi names the steps, and
https://lightning.ai/docs/litserve/features/autoscaling the workers. A request type other than `Request` is
given to FastAPI as it is, which is how a body that is no JSON is taken.
"""

import os
from typing import Annotated

import litserve
from fastapi import Body, HTTPException, Response

from detection.errors import ImageError


class DetectApi(litserve.LitAPI):
    """Bytes of a picture in, JSON out."""

    def setup(self, device: str) -> None:
        from tests.benchmarks.peers.detector import load_detector  # only here: no other process needs torch

        self.detector = load_detector()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        return request

    def predict(self, picture: bytes) -> bytes:
        try:
            return self.detector.look(picture)
        except ImageError as error:
            raise HTTPException(422, str(error)) from None

    def encode_response(self, found: bytes) -> Response:
        return Response(found, media_type="application/json")


if __name__ == "__main__":
    server = litserve.LitServer(
        DetectApi(api_path="/detect"),
        accelerator="cpu",
        devices=1,
        workers_per_device=int(os.environ["BENCH_WORKERS"]),
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        log_level="warning",
        generate_client_file=False,
    )
