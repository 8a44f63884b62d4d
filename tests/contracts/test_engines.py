"""What every engine promises its callers; the fake keeps the promises of the process behind the socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from app.detect.engine_client import EngineClient
from app.detect.wire import ServedModel
from app.settings import Settings
from app.storage import open_storage
from tests.fakes import FakeEngine
from tests.pictures import jpeg, noise
from tests.published import RECORD, publish
from tests.serving import EngineProcess, short_folder

PICTURE = jpeg(noise(150, 100))

OpenEngine = Callable[[], EngineClient]
FIRST, SECOND = (ServedModel(name, RECORD, ()) for name in ("m1", "m2"))


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with short_folder() as folder:
        yield Settings(home=folder, device="cpu")


@pytest.fixture(scope="module")
def models(settings: Settings) -> tuple[ServedModel, ServedModel]:
    storage = open_storage(settings)
    return publish(storage, FIRST.id), publish(storage, SECOND.id, seed=1)


@pytest.fixture(scope="module", params=["fake", "process"])
def open_engine(request: pytest.FixtureRequest, settings: Settings) -> Iterator[OpenEngine]:
    if request.param == "fake":
        yield FakeEngine
        return
    process = EngineProcess(settings)
    yield lambda: EngineClient(settings)
    process.kill()


def asked(open_engine: OpenEngine, story: Callable[[EngineClient], Awaitable[None]]) -> None:
    async def tell() -> None:
        engine = open_engine()
        try:
            async with asyncio.timeout(60):
                await story(engine)
        finally:
            await engine.close()

    asyncio.run(tell())


def test_an_answer_names_the_model_that_looked(
    open_engine: OpenEngine, models: tuple[ServedModel, ServedModel]
) -> None:
    first, second = models

    async def story(engine: EngineClient) -> None:
        await engine.prepare(first, 30.0)
        if isinstance(engine, FakeEngine):
            engine.loading.add(second.id)
        assert (await engine.detect(PICTURE, second, instead=first)).model_id == first.id
        await engine.prepare(second, 30.0)
        assert (await engine.detect(PICTURE, second, instead=first)).model_id == second.id
        assert (await engine.detect(PICTURE, first)).model_id == first.id

    asked(open_engine, story)


def test_what_is_to_be_held_is_said_at_once(
    open_engine: OpenEngine, models: tuple[ServedModel, ServedModel]
) -> None:
    async def story(engine: EngineClient) -> None:
        await engine.hold(models)
        await engine.hold([])

    asked(open_engine, story)
