"""BentoML: one service class; `bentoml serve tests.benchmarks.peers.bentoml_app:Detect`.

https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html names `workers`, and
https://docs.bentoml.com/en/latest/build-with-bentoml/iotypes.html the root input, which is the body itself.
"""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from detection.errors import ImageError


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]))
class Detect:
    """Bytes of a picture in, JSON out."""

    def __init__(self) -> None:
        from tests.benchmarks.peers.detector import load_detector  # only here: no other process needs torch

        self.detector = load_detector()

    @bentoml.api(route="/detect")
    def detect(
        self, picture: Annotated[Path, ContentType("image/jpeg")], /
    ) -> Annotated[bytes, ContentType("application/json")]:
        """Find objects in one picture."""
        try:
            return self.detector.look(picture.read_bytes())
        except ImageError as error:
            raise bentoml.exceptions.InvalidArgument(str(error)) from None
