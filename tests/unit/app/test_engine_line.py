"""Both ends of the engine's socket, with a pipeline that does what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.detect.engine_client import EngineClient
from app.detect.errors import (
    DamagedPictureError,
    ModelUnavailableError,
    PictureTooLargeError,
    UnsupportedPictureError,
)
from app.detect.frames import FrameProtocol
from app.detect.wire import (
    AskStatus,
    Box,
    Detect,
    Detected,
    EngineStatus,
    Prepare,
    Prepared,
    Refusal,
    Render,
    Rendered,
    ServedModel,
    Timing,
)
from app.engine.holds import Holds
from app.engine.listener import EngineRunningError, listen
from app.engine.refusal import RefusedError
from app.engine.server import Connection
from app.errors import DrainingError, EngineUnavailableError, HarrierError, InternalError, OverloadedError
from app.settings import Settings
from detection.errors import DamagedImageError, ImageTooLargeError, UnsupportedImageError
from detection.model_record import ModelRecord

MODEL = ServedModel("m1", ModelRecord(architecture="a", classes=("cat",), input_size_hw=(8, 8)), ())
TIMING = Timing(1.0, 2.0, 3.0, 4.0, 5.0, 1)


class Pipeline:
    """Answers pictures by their bytes: slow ones wait, bad ones raise."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[bytes] = []
        self.ended: list[bytes] = []
        self.errors: dict[bytes, Exception] = {}
        self.held: list[tuple[str, ...]] = []
        self.expected: list[tuple[str, ...]] = []
        self.turned_away: list[int] = []

    async def detect(self, request: Detect, *, tell: Callable[[Detected], object]) -> Detected:
        self.begun.append(request.image)
        self.turned_away.append(request.turned_away)
        if request.image.startswith(b"slow"):
            try:
                await self.gate.wait()
            finally:
                self.ended.append(request.image)
        if request.image in self.errors:
            raise self.errors[request.image]
        detected = Detected(request.id, 4, 3, (Box(0, 0, 1, 1, 0, "cat", 0.5),), TIMING, 0, request.model.id)
        if request.image.startswith(b"told"):
            await asyncio.to_thread(tell, detected)
            await self.gate.wait()
        return detected

    async def render(self, request: Render) -> Rendered:
        return Rendered(request.id, request.image[::-1])

    def hold(self, models: Sequence[ServedModel], expected: Sequence[ServedModel]) -> None:
        self.held.append(tuple(model.id for model in models))
        self.expected.append(tuple(model.id for model in expected))

    async def prepare(self, request: Prepare) -> Prepared:
        if request.model.id == "lost":
            raise RefusedError(Refusal.MODEL_UNAVAILABLE, "the model lost has lost its onnx file")
        return Prepared(request.id)

    async def status(self, request: AskStatus) -> EngineStatus:
        return EngineStatus(request.id, 1, "CPU", "eager", ("m1",), 10, 0, 0)


class Wiring:
    """A served pipeline, and a client of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pipeline = Pipeline()
        self.holds = Holds(self.pipeline.hold)
        self.client = EngineClient(settings)
        self.connections: list[Connection] = []
        self.over: list[Connection] = []

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[None]:
        def welcome() -> FrameProtocol:
            pipeline: Any = self.pipeline
            connection = Connection(pipeline, self.holds, max_image_bytes=1000, when_over=self.over.append)
            self.connections.append(connection)
            return connection.protocol

        with listen(self.settings.engine_socket) as socket:
            server = await asyncio.get_running_loop().create_unix_server(welcome, sock=socket)
            async with server:
                yield

    async def detect(self, image: bytes) -> Detected:
        return await self.client.detect(image, MODEL)

    async def begun(self, image: bytes) -> None:
        while image not in self.pipeline.begun:
            await asyncio.sleep(0.001)

    async def ended(self, image: bytes) -> None:
        while image not in self.pipeline.ended:
            await asyncio.sleep(0.001)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, engine_deadline_s=20)


def wired(settings: Settings, story: Callable[[Wiring], Awaitable[None]]) -> None:
    async def tell() -> None:
        wiring = Wiring(settings)
        async with asyncio.timeout(20):
            async with wiring.engine():
                await story(wiring)
                await wiring.client.close()

    asyncio.run(tell())


def test_every_kind_of_request_has_its_answer(settings: Settings) -> None:
    async def story(wiring: Wiring) -> None:
        found = await wiring.detect(b"picture")
        assert (found.width, found.height, found.boxes[0].label) == (4, 3, "cat")
        assert await wiring.client.render(b"abc", max_side=5) == b"cba"
        assert (await wiring.client.status()).models == ("m1",)
        await wiring.client.prepare(MODEL, 5.0)
        await wiring.client.hold([MODEL])
        assert wiring.pipeline.held == [("m1",)]

    wired(settings, story)


def test_a_slow_picture_holds_up_no_other(settings: Settings) -> None:
    async def story(wiring: Wiring) -> None:
        slow = asyncio.create_task(wiring.detect(b"slow"))
        await wiring.begun(b"slow")
        await wiring.detect(b"quick")
        assert not slow.done()
        wiring.pipeline.gate.set()
        assert (await slow).width == 4

    wired(settings, story)


def test_what_a_thread_tells_is_the_answer_and_the_only_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    send = FrameProtocol.send

    def send_counted(line: FrameProtocol, message: bytes, picture: bytes = b"") -> None:
        sent.append(message)
        send(line, message, picture)

    async def story(wiring: Wiring) -> None:
        for _ in range(3):
            assert (await wiring.detect(b"told")).width == 4, "the engine is not done with it yet"
        monkeypatch.setattr(FrameProtocol, "send", send_counted)
        wiring.pipeline.gate.set()
        await wiring.client.status()
        assert len(sent) == 2, "the question for the status, and its answer"

    wired(settings, story)


def test_what_a_thread_tells_too_late_goes_nowhere(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Callable[[], object]] = []

    async def story(wiring: Wiring) -> None:
        async def detect(request: Detect, *, tell: Callable[[Detected], object]) -> Detected:
            late.append(lambda: tell(Detected(request.id, 9, 9, (), TIMING, 0, "m1")))
            await wiring.pipeline.gate.wait()
            raise AssertionError

        monkeypatch.setattr(wiring.pipeline, "detect", detect)
        with pytest.raises(OverloadedError, match="longer"):
            await wiring.detect(b"slow")
        await asyncio.to_thread(late[0])
        assert (await wiring.client.status()).models == ("m1",)

    wired(settings.model_copy(update={"engine_deadline_s": 0.05}), story)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (UnsupportedImageError("a"), UnsupportedPictureError),
        (DamagedImageError("a"), DamagedPictureError),
        (ImageTooLargeError("a"), PictureTooLargeError),
        (RefusedError(Refusal.OVERLOADED, "a"), OverloadedError),
        (RefusedError(Refusal.DRAINING, "a"), DrainingError),
        (RefusedError(Refusal.MODEL_UNAVAILABLE, "a"), ModelUnavailableError),
        (RuntimeError("a secret"), InternalError),
    ],
)
def test_an_error_reaches_the_caller_and_nobody_else(
    settings: Settings, error: Exception, answer: type[HarrierError]
) -> None:
    async def story(wiring: Wiring) -> None:
        wiring.pipeline.errors[b"bad"] = error
        with pytest.raises(answer) as raised:
            await wiring.detect(b"bad")
        assert "secret" not in raised.value.detail
        await wiring.detect(b"good")

    wired(settings, story)


def test_a_picture_that_waited_too_long_is_dropped(settings: Settings) -> None:
    async def story(wiring: Wiring) -> None:
        with pytest.raises(OverloadedError, match="longer"):
            await wiring.detect(b"slow")
        assert wiring.pipeline.ended == [b"slow"]

    wired(settings.model_copy(update={"engine_deadline_s": 0.05}), story)


def test_a_caller_that_leaves_ends_the_work(settings: Settings) -> None:
    async def story(wiring: Wiring) -> None:
        gone = asyncio.create_task(wiring.detect(b"slow"))
        await wiring.begun(b"slow")
        gone.cancel()
        await wiring.ended(b"slow")

    wired(settings, story)


def test_a_client_that_disconnects_ends_all_its_work(settings: Settings) -> None:
    async def story(wiring: Wiring) -> None:
        waiting = asyncio.create_task(wiring.detect(b"slow"))
        await wiring.begun(b"slow")
        await wiring.client.close()
        with pytest.raises(EngineUnavailableError):
            await waiting
        await wiring.ended(b"slow")

    wired(settings, story)


def test_an_engine_that_dies_fails_at_once_and_is_found_again(settings: Settings) -> None:
    async def story() -> None:
        wiring = Wiring(settings)
        async with asyncio.timeout(20):
            async with wiring.engine():
                waiting = asyncio.create_task(wiring.detect(b"slow"))
                await wiring.begun(b"slow")
                wiring.connections[0].protocol.abort()
                with pytest.raises(EngineUnavailableError) as raised:
                    await waiting
                assert raised.value.retry_after_s >= 1
            with pytest.raises(EngineUnavailableError, match="not running"):
                await wiring.detect(b"picture")
            async with wiring.engine():
                await wiring.detect(b"picture")
                await wiring.client.close()

    asyncio.run(story())


def test_what_any_of_several_clients_names_is_held(settings: Settings) -> None:
    other = msgspec.structs.replace(MODEL, id="m2")

    async def story(wiring: Wiring) -> None:
        second = EngineClient(settings)
        await wiring.client.hold([MODEL])
        await second.hold([other, MODEL])
        assert wiring.pipeline.held[-1] == ("m1", "m2")
        await second.hold([other, MODEL], [MODEL, other])
        assert wiring.pipeline.expected[-1] == ("m1", "m2")
        await wiring.client.hold([])
        assert wiring.pipeline.held[-1] == ("m2", "m1")
        await wiring.client.hold([MODEL])
        await second.close()
        while wiring.pipeline.held[-1] != ("m1",):
            await asyncio.sleep(0.001)
        heard = len(wiring.pipeline.held)
        await wiring.client.close()
        await wiring.connections[0].protocol.ended.wait()
        assert len(wiring.pipeline.held) == heard, "a client that is started anew finds its models there"
        await second.hold([other])
        assert wiring.pipeline.held[-1] == ("m2",)
        await second.close()

    wired(settings, story)


def test_an_engine_that_was_started_anew_is_told_what_to_hold(settings: Settings) -> None:
    async def story() -> None:
        wiring = Wiring(settings)
        async with asyncio.timeout(20):
            with pytest.raises(EngineUnavailableError):
                await wiring.client.hold([MODEL])
            for _ in range(2):
                wiring.pipeline.held.clear()
                async with wiring.engine():
                    await wiring.detect(b"picture")
                    assert wiring.pipeline.held == [("m1",)]
                    wiring.connections[-1].protocol.abort()
                with pytest.raises(EngineUnavailableError):
                    await wiring.client.status()
            await wiring.client.close()

    asyncio.run(story())


def test_a_model_that_cannot_be_prepared_is_an_error(settings: Settings) -> None:
    async def story(wiring: Wiring) -> None:
        with pytest.raises(ModelUnavailableError, match="lost"):
            await wiring.client.prepare(msgspec.structs.replace(MODEL, id="lost"), 5.0)

    wired(settings, story)


def test_a_refusal_says_when_to_come_again(settings: Settings) -> None:
    async def story(wiring: Wiring) -> None:
        wiring.pipeline.errors[b"bad"] = RefusedError(Refusal.OVERLOADED, "a", retry_after_s=7)
        with pytest.raises(OverloadedError) as raised:
            await wiring.detect(b"bad")
        assert raised.value.retry_after_s == 7

    wired(settings, story)


def test_a_full_engine_is_spared_what_it_would_refuse_and_hears_of_it(settings: Settings) -> None:
    async def story(wiring: Wiring) -> None:
        slow = asyncio.create_task(wiring.detect(b"slow"))
        await wiring.begun(b"slow")
        wiring.pipeline.errors[b"too much"] = RefusedError(Refusal.FULL, "a", retry_after_s=7)
        for _ in range(3):
            with pytest.raises(OverloadedError) as raised:
                await wiring.detect(b"too much")
            assert raised.value.retry_after_s == 7
        assert wiring.pipeline.begun.count(b"too much") == 1
        wiring.pipeline.gate.set()
        await slow
        await wiring.detect(b"quick")
        assert wiring.pipeline.turned_away == [0, 0, 2]

    wired(settings, story)


def test_what_was_accepted_is_answered_before_the_engine_ends(settings: Settings) -> None:
    async def story(wiring: Wiring) -> None:
        waiting = asyncio.create_task(wiring.detect(b"slow"))
        await wiring.begun(b"slow")
        finishing = asyncio.create_task(wiring.connections[0].finish())
        await asyncio.sleep(0)
        assert not finishing.done()
        wiring.pipeline.gate.set()
        await finishing
        assert (await waiting).width == 4

    wired(settings, story)


@pytest.mark.parametrize(
    "nonsense", [b"\xff" * 8, b"\0\0\0\1\0\0\0\0\xc1", b"\0\0\0\1\0\0", b"\0\0\0\1\0\0\0\0"]
)
def test_nonsense_ends_the_connection_and_nothing_else(settings: Settings, nonsense: bytes) -> None:
    async def story(wiring: Wiring) -> None:
        reader, writer = await asyncio.open_unix_connection(settings.engine_socket)
        writer.write(nonsense)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await wiring.detect(b"picture")

    wired(settings, story)


def test_an_engine_that_talks_nonsense_is_not_trusted(settings: Settings) -> None:
    async def story() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"\0\0\0\1\0\0\0\0\xc1")
            writer.close()

        with listen(settings.engine_socket) as socket:
            async with await asyncio.start_unix_server(babble, sock=socket):
                client = EngineClient(settings)
                with pytest.raises(EngineUnavailableError):
                    await client.status()

    asyncio.run(story())


def test_only_the_owner_may_connect_and_the_file_goes(settings: Settings) -> None:
    with listen(settings.engine_socket):
        assert settings.engine_socket.stat().st_mode & 0o777 == 0o600
        with pytest.raises(EngineRunningError), listen(settings.engine_socket):
            pass
    assert not settings.engine_socket.exists()


def test_the_socket_of_a_dead_engine_is_replaced(settings: Settings) -> None:
    with listen(settings.engine_socket) as socket:
        socket.close()
        assert settings.engine_socket.exists()
        with listen(settings.engine_socket):
            assert settings.engine_socket.exists()
