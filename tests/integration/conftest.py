"""Homes with real processes: a broker, workers, and SQLite or PostgreSQL below them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from app.jobs.states import Queue
from tests.services import Home, running_postgres
from tests.serving import short_folder


@pytest.fixture
def home() -> Iterator[Home]:
    """A home on SQLite with a running broker, for one test that breaks things."""
    with short_folder() as folder:
        home = Home(folder)
        home.start_broker()
        yield home
        home.close()


@pytest.fixture(scope="session")
def house() -> Iterator[Home]:
    """A home on SQLite with a broker and one worker per queue, for tests that leave it whole."""
    with short_folder() as folder:
        house = Home(folder)
        house.start_broker()
        for queue in Queue:
            house.start_worker(queue)
        yield house
        house.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_house(request: pytest.FixtureRequest) -> Iterator[Home]:
    """The same on each kind of database, for one test."""
    with ExitStack() as stack:
        address = {}
        if request.param == "postgresql":
            address["database_url"] = stack.enter_context(running_postgres()).address
        house = Home(stack.enter_context(short_folder()), **address)
        stack.callback(house.close)
        house.start_broker()
        for queue in Queue:
            house.start_worker(queue)
        yield house
