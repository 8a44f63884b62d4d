"""Homes with real processes: a broker, workers, and SQLite or PostgreSQL below them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from app.jobs.states import Queue
from tests.services import Home, running_postgres
from tests.serving import short_folder

OpenHouse = Callable[[str], Home]


@pytest.fixture
def home() -> Iterator[Home]:
    """A home on SQLite with a running broker, for one test that breaks things."""
    with short_folder() as folder:
        home = Home(folder)
        home.start_broker()
        yield home
        home.close()


@pytest.fixture(scope="session")
def open_house() -> Iterator[OpenHouse]:
    """Return the home on a kind of database, with broker and one worker per queue; made when first wanted."""
    with ExitStack() as stack:
        houses: dict[str, Home] = {}

        def opened(database: str) -> Home:
            if database not in houses:
                address = {}
                if database == "postgresql":
                    address["database_url"] = stack.enter_context(running_postgres()).address
                house = houses[database] = Home(stack.enter_context(short_folder()), **address)
                stack.callback(house.close)
                house.start_broker()
                for queue in Queue:
                    house.start_worker(queue)
            return houses[database]

        yield opened


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def any_house(request: pytest.FixtureRequest, open_house: OpenHouse) -> Home:
    """A busy home, once on each kind of database."""
    return open_house(request.param)


@pytest.fixture(scope="session")
def house(open_house: OpenHouse) -> Home:
    """A busy home on SQLite."""
    return open_house("sqlite")
