"""The engine as a process: bounded, forgetful of those who left, and in order when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from app.detect.engine_client import EngineClient
from app.detect.errors import PictureTooLargeError
from app.detect.wire import Box, Detected, ServedModel
from app.errors import OverloadedError
from app.settings import Settings
from app.storage import open_storage
from detection.images import decode_image
from tests.pictures import jpeg, noise, png, png_header, quadrants
from tests.published import publish, publish_weights
from tests.serving import EngineProcess, short_folder

QUEUE = 3
PICTURE = jpeg(noise(150, 100))
SLOW_PICTURE = png(quadrants(1600, 1200))
"""Few bytes, but long to decode: none is through before the last of some has been read."""


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with short_folder() as folder:
        yield Settings(home=folder, device="cpu", engine_queue_images=QUEUE)


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[EngineProcess]:
    engine = EngineProcess(settings)
    yield engine
    engine.kill()


@pytest.fixture(scope="module")
def model(settings: Settings) -> ServedModel:
    return publish(open_storage(settings))


def asked(settings: Settings, story: Callable[[EngineClient], Awaitable[None]]) -> None:
    async def tell() -> None:
        client = EngineClient(settings)
        try:
            async with asyncio.timeout(60):
                await story(client)
        finally:
            await client.close()

    asyncio.run(tell())


async def sent(*requests: asyncio.Task[Detected]) -> None:
    """Let the requests reach the socket; their answers come from another process."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(request.done() for request in requests)


def test_one_more_than_the_queue_holds_is_refused_at_once(
    settings: Settings, engine: EngineProcess, model: ServedModel
) -> None:
    async def story(client: EngineClient) -> None:
        await client.detect(PICTURE, model)
        engine.process.send_signal(signal.SIGSTOP)  # so that all of them are read in one go
        requests = [asyncio.create_task(client.detect(SLOW_PICTURE, model)) for _ in range(QUEUE + 4)]
        await sent(*requests)
        engine.process.send_signal(signal.SIGCONT)
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert [isinstance(answer, Detected) for answer in answers] == [True] * QUEUE + [False] * 4
        assert all(isinstance(answer, OverloadedError) for answer in answers[QUEUE:])
        assert isinstance(await client.detect(PICTURE, model), Detected)

    asked(settings, story)


def test_a_request_whose_caller_left_costs_nothing(settings: Settings, engine: EngineProcess) -> None:
    unloaded = publish(open_storage(settings), "never-loaded")

    async def story(client: EngineClient) -> None:
        await client.status()
        engine.process.send_signal(signal.SIGSTOP)
        gone = asyncio.create_task(client.detect(PICTURE, unloaded))
        await sent(gone)
        gone.cancel()
        await asyncio.wait({gone})
        engine.process.send_signal(signal.SIGCONT)
        status = await client.status()
        assert (status.queue_images, status.queue_bytes) == (0, 0)
        assert "never-loaded" not in status.models

    asked(settings, story)


def test_a_bad_picture_among_good_ones(settings: Settings, engine: EngineProcess, model: ServedModel) -> None:
    async def story(client: EngineClient) -> None:
        alone = await client.detect(PICTURE, model, score_threshold=0.01)
        assert alone.boxes
        for bad in (b"", PICTURE[:500], png(quadrants())[:100]):
            together = (
                client.detect(PICTURE, model, score_threshold=0.01),
                client.detect(bad, model),
                client.detect(PICTURE, model, score_threshold=0.01),
            )
            first, error, last = await asyncio.gather(*together, return_exceptions=True)
            assert isinstance(error, Exception)
            assert isinstance(first, Detected)
            assert isinstance(last, Detected)
            assert first.boxes == last.boxes == alone.boxes

    asked(settings, story)


def test_large_pictures_hold_up_no_small_one(
    settings: Settings, engine: EngineProcess, model: ServedModel
) -> None:
    large = png(np.zeros((6000, 6000, 3), np.uint8))

    async def story(client: EngineClient) -> None:
        crowd = [asyncio.create_task(client.detect(large, model)) for _ in range(QUEUE - 1)]
        await sent(*crowd)
        assert isinstance(await client.detect(PICTURE, model), Detected)
        assert not all(each.done() for each in crowd)
        assert [(each.width, each.height) for each in await asyncio.gather(*crowd)] == [(6000, 6000)] * 2

    asked(settings, story)


def test_a_picture_of_too_many_pixels_waits_for_no_large_one(
    settings: Settings, engine: EngineProcess, model: ServedModel
) -> None:
    large = png(np.zeros((6000, 6000, 3), np.uint8))

    async def story(client: EngineClient) -> None:
        waiting = asyncio.create_task(client.detect(large, model))
        await sent(waiting)
        with pytest.raises(PictureTooLargeError):
            await client.detect(png_header(65_535, 65_535), model)
        assert not waiting.done()
        await waiting

    asked(settings, story)


def test_pictures_are_drawn_and_shrunk(settings: Settings, engine: EngineProcess) -> None:
    async def story(client: EngineClient) -> None:
        picture = jpeg(quadrants(640, 480), orientation=6)
        small = decode_image(await client.render(picture, max_side=100))
        assert small.size_wh == (75, 100)
        assert decode_image(await client.render(picture)).size_wh == (480, 640)
        box = Box(100, 100, 300, 300, 0, "cat")
        drawn = decode_image(await client.render(picture, boxes=(box,), max_side=100))
        assert drawn.size_wh == (75, 100)
        assert (drawn.pixels != small.pixels).any()
        enlarged = decode_image(await client.render(jpeg(quadrants(20, 10)), max_side=100))
        assert enlarged.size_wh == (20, 10)

    asked(settings, story)


def test_a_second_engine_on_the_same_socket_says_so(settings: Settings, engine: EngineProcess) -> None:
    environment = {**os.environ, "HARRIER_HOME": str(settings.home)}
    second = subprocess.run(
        [sys.executable, "-m", "app.engine"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 1
    assert "another engine listens" in second.stderr


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_a_setting_that_cannot_be_used_is_named_and_has_an_exit_status_of_its_own(options: list[str]) -> None:
    with short_folder() as home:
        environment = {**os.environ, "HARRIER_HOME": str(home), "HARRIER_BACKEND": "openvino:fp16x"}
        command = [sys.executable, "-m", "app.engine", *options]
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == os.EX_CONFIG
    assert "HARRIER_BACKEND=openvino:fp16x: unknown precision 'fp16x'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_settings_that_can_be_used_are_checked_beside_an_engine(
    settings: Settings, engine: EngineProcess
) -> None:
    environment = {**os.environ, "HARRIER_HOME": str(settings.home), "HARRIER_DEVICE": "cpu"}
    command = [sys.executable, "-m", "app.engine", "--check"]
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr
    assert "engine can start" in checked.stdout + checked.stderr


def test_batches_answer_like_single_pictures() -> None:
    """As on an accelerator: the torch module, several pictures in one forward pass."""
    with short_folder() as folder:
        settings = Settings(home=folder, device="cpu", backend="eager", engine_batch_size=4)
        model = publish_weights(open_storage(settings))
        engine = EngineProcess(settings)
        pictures = [jpeg(noise(90 + 10 * seed, 100, seed=seed)) for seed in range(9)]

        async def story(client: EngineClient) -> None:
            async def look(picture: bytes) -> Detected:
                return await client.detect(picture, model, score_threshold=0.0, max_detections=20)

            alone = [await look(picture) for picture in pictures]
            assert {answer.timing.batch_size for answer in alone} == {1}
            together = await asyncio.gather(*(look(picture) for picture in pictures))
            assert max(answer.timing.batch_size for answer in together) > 1
            for one, other in zip(alone, together, strict=True):
                assert (one.width, one.height) == (other.width, other.height)
                assert [box.score for box in one.boxes] == pytest.approx(
                    [box.score for box in other.boxes], abs=1e-4
                )

        asked(settings, story)
        assert engine.stop() == 0


def test_sigterm_lets_the_accepted_finish(
    settings: Settings, engine: EngineProcess, model: ServedModel
) -> None:
    async def story(client: EngineClient) -> None:
        await client.detect(PICTURE, model)
        engine.process.send_signal(signal.SIGSTOP)
        requests = [asyncio.create_task(client.detect(PICTURE, model)) for _ in range(QUEUE)]
        await sent(*requests)
        engine.process.send_signal(signal.SIGCONT)
        first = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        assert first[0]
        engine.process.terminate()
        answers = await asyncio.gather(*requests)
        assert all(answer.width == 150 for answer in answers)
        assert await asyncio.to_thread(engine.process.wait, 30) == 0

    asked(settings, story)
