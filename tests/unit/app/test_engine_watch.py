"""What an API process notices of its engine: that it starts, that it answers, that it has frozen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from app.database.changes import UnknownChanges
from app.detect.engine_client import EngineClient
from app.detect.engine_watch import EngineWatch
from app.detect.frames import Frame, FrameProtocol
from app.detect.measures import DetectMeasures
from app.detect.model_choice import ModelChoice
from app.detect.wire import (
    AskStatus,
    EngineStatus,
    Held,
    Hold,
    ServedModel,
    decode_request,
    encode,
)
from app.engine.listener import listen
from app.errors import EngineUnavailableError
from app.settings import Settings
from detection.inference.serving import Precision, ServingShape
from detection.model_record import ModelRecord

MODEL = ServedModel("m1", ModelRecord(architecture="a", classes=("cat",), input_size_hw=(8, 8)), ())

PINNED = replace(MODEL, id="m2", shape=ServingShape("eager", Precision.FP32, 1, 1, 1))


class Engine:
    """Answers what it is told, or, frozen, nothing: who connects then waits."""

    def __init__(self) -> None:
        self.is_frozen = False
        self.held: list[tuple[str, ...]] = []
        self.expected: list[tuple[str, ...]] = []
        self.lines: list[FrameProtocol] = []

    def welcome(self) -> FrameProtocol:
        line = FrameProtocol(
            max_bytes=10_000, on_frame=lambda frame: self.take(line, frame), on_end=lambda: None
        )
        self.lines.append(line)
        return line

    def take(self, line: FrameProtocol, frame: Frame) -> None:
        request = decode_request(frame)
        if self.is_frozen:
            return
        if isinstance(request, Hold):
            self.held.append(tuple(model.id for model in request.models))
            self.expected.append(tuple(model.id for model in request.expected))
            line.send(*encode(Held(request.id)))
        elif isinstance(request, AskStatus):
            line.send(*encode(EngineStatus(request.id, 1, "CPU", "eager", (), 0, 0, 0)))


class Choice(ModelChoice):
    """The models with a name, whatever the database says."""

    def __init__(self) -> None:
        """There is no database to ask."""

    def held(self) -> tuple[ServedModel, ...]:
        return (MODEL,)

    def pinned(self) -> tuple[ServedModel, ...]:
        return (PINNED,)


def watched(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    story: Callable[[Engine, EngineClient, EngineWatch], Awaitable[None]],
) -> None:
    for name in ("GRACE_S", "STATUS_TIMEOUT_S"):
        monkeypatch.setattr(f"app.detect.engine_client.{name}", 0.02)
    monkeypatch.setattr(EngineClient.status, "__kwdefaults__", {"timeout_s": 0.02})

    async def tell() -> None:
        settings = Settings(home=folder)
        engine, client = Engine(), EngineClient(settings)
        models, measures = Choice(), DetectMeasures(CollectorRegistry())
        watch = EngineWatch(client, models, UnknownChanges(), measures)
        with listen(settings.engine_socket) as socket:
            async with (
                asyncio.timeout(20),
                await asyncio.get_running_loop().create_unix_server(engine.welcome, sock=socket),
            ):
                await story(engine, client, watch)
                await client.close()

    asyncio.run(tell())


def test_who_waits_for_a_frozen_engine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: Engine, client: EngineClient, watch: EngineWatch) -> None:
        await watch.look()
        engine.is_frozen = True
        waiting = asyncio.create_task(client.detect(b"picture", MODEL))
        await watch.look()
        assert not waiting.done(), "once may be a mishap"
        await watch.look()
        with pytest.raises(EngineUnavailableError, match="does not answer") as told:
            await waiting
        assert told.value.retry_after_s > 0
        later = asyncio.create_task(client.detect(b"picture", MODEL))
        await watch.look()
        with pytest.raises(EngineUnavailableError):
            await later
        engine.is_frozen = False
        await watch.look()
        assert await client.status()
        assert (engine.held[-1], engine.expected[-1]) == (("m1",), ("m2",))

    watched(tmp_path, monkeypatch, story)


def test_an_engine_that_is_only_starting_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens before it can answer, also when it takes the place of one that answered."""

    async def story(engine: Engine, client: EngineClient, watch: EngineWatch) -> None:
        await watch.look()
        engine.is_frozen = True
        engine.lines[0].abort()
        await watch.look()
        waiting = asyncio.create_task(client.detect(b"picture", MODEL))
        for _ in range(4):
            await watch.look()
        assert not waiting.done()
        waiting.cancel()

    watched(tmp_path, monkeypatch, story)
