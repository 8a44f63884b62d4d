"""One running server for every test that leaves it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import Serve, short_folder


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    # Answers are compared with the reference's to the digit: the engine must not change to bf16 on the way.
    with short_folder() as folder, Serve(folder / "home", backend="onnxruntime") as serve:
        yield serve
