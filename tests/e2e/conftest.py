"""One running server for every test that leaves it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import Serve, short_folder


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    with short_folder() as folder, Serve(folder / "home") as serve:
        yield serve
