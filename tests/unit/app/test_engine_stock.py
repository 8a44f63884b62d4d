"""Which model looks, in which shape, and the short way of a picture through one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from app.detect.wire import AskStatus, ChosenBy, Detect, Detected, Prepare, Refusal, ServedModel
from app.engine.device import choose_device, num_cores
from app.engine.loader import LoadedModel, Loader
from app.engine.pipeline import Pipeline
from app.engine.refusal import RefusedError
from app.engine.stock import ReadyModel
from app.engine.straight import Straight
from app.engine.threads import Threads
from app.engine.width import Width
from app.settings import Settings
from app.storage import open_storage
from detection.errors import DamagedImageError
from detection.inference.predictor import DetectOptions, Inferred, Predictor, Prepared
from detection.inference.serving import Precision, ServingShape
from tests.pictures import jpeg, noise, png
from tests.published import publish

PICTURE = jpeg(noise(150, 100))
ONE_STREAM = ServingShape("onnxruntime", Precision.FP32, streams=1, threads=1, batch_size=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, device="cpu")


def request(model: ServedModel, image: bytes = PICTURE, *, instead: ServedModel | None = None) -> Detect:
    return Detect(
        id=1,
        timeout_s=20,
        model=model,
        image=image,
        score_threshold=0.3,
        nms_iou=None,
        max_detections=100,
        class_ids=None,
        annotate=False,
        instead=instead,
    )


def piped(settings: Settings, story: Callable[[Pipeline], Awaitable[None]]) -> None:
    async def tell() -> None:
        async with asyncio.timeout(30):
            await story(Pipeline(settings, open_storage(settings)))

    asyncio.run(tell())


def test_another_looks_while_the_wanted_one_is_loaded(settings: Settings) -> None:
    first, second = (publish(open_storage(settings), name) for name in ("m1", "m2"))

    async def story(pipeline: Pipeline) -> None:
        assert (await pipeline.detect(request(second, instead=first))).model_id == "m2", "neither was there"
        await pipeline.prepare(Prepare(2, 20, first))
        third = publish(open_storage(settings), "m3")
        assert (await pipeline.detect(request(third, instead=first))).model_id == "m1"
        await pipeline.prepare(Prepare(3, 20, third))
        assert (await pipeline.detect(request(third, instead=first))).model_id == "m3"

    piped(settings, story)


def test_a_model_serves_as_before_while_its_pinned_shape_is_loaded(settings: Settings) -> None:
    plain = publish(open_storage(settings))
    pinned = msgspec.structs.replace(plain, shape=ONE_STREAM)

    async def story(pipeline: Pipeline) -> None:
        stock = pipeline._stock
        assert stock.stand_in(request(pinned)) == pinned, "it never served before"
        await pipeline.detect(request(plain))
        assert stock.stand_in(request(pinned)) == plain
        assert (await pipeline.detect(request(pinned))).model_id == "m1"
        await pipeline.prepare(Prepare(2, 20, pinned))
        assert stock.stand_in(request(pinned)) == pinned

    piped(settings, story)


def test_nobody_looks_for_ever_in_place_of_a_model_that_cannot_be_loaded(settings: Settings) -> None:
    storage = open_storage(settings)
    good, damaged = (publish(storage, name) for name in ("m1", "m2"))
    onnx = next(file for file in damaged.files if file.format == "onnx")
    path = storage.local_path(onnx.key, settings.scratch)
    whole = path.read_bytes()

    async def story(pipeline: Pipeline) -> None:
        await pipeline.prepare(Prepare(1, 20, good))
        pipeline.hold([good, damaged])
        path.unlink()
        assert (await pipeline.detect(request(damaged, instead=good))).model_id == "m1"
        with pytest.raises(RefusedError, match="lost its onnx file"):
            await pipeline.prepare(Prepare(2, 20, damaged))
        for _ in range(2):
            with pytest.raises(RefusedError, match="lost its onnx file"):
                await pipeline.detect(request(damaged, instead=good))
        path.write_bytes(whole)
        assert (await pipeline.detect(request(damaged, instead=good))).model_id == "m2", "tried each time"

    piped(settings, story)


def test_the_status_tells_how_each_model_is_served_and_who_decided_it(settings: Settings) -> None:
    plain = publish(open_storage(settings))
    pinned = msgspec.structs.replace(plain, shape=ONE_STREAM)
    elsewhere = msgspec.structs.replace(plain, shape=replace(ONE_STREAM, backend="tensorrt"))

    async def story(pipeline: Pipeline) -> None:
        stock, own = pipeline._stock, pipeline._device.shape

        async def served() -> list[tuple[str, ServingShape, ChosenBy]]:
            status = await pipeline.status(AskStatus(1, 1.0))
            return [(each.model_id, each.shape, each.chosen_by) for each in status.served]

        assert await served() == []
        await pipeline.detect(request(plain))
        assert await served() == [("m1", own, ChosenBy.DEFAULT)]
        stock.held[:] = [pinned]
        assert await served() == [("m1", own, ChosenBy.DEFAULT)], "it is not loaded yet"
        await pipeline.prepare(Prepare(2, 20, pinned))
        assert await served() == [("m1", ONE_STREAM, ChosenBy.PLAN)]
        stock.held[:] = [elsewhere]
        assert await served() == [("m1", own, ChosenBy.DEFAULT)]
        assert "cannot be used here" in (await pipeline.status(AskStatus(1, 1.0))).served[0].reason

    piped(settings, story)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_only_on_a_cpu_one_thread_takes_a_picture_all_the_way(settings: Settings, on_cpu: bool) -> None:
    """ONNX Runtime hands its outputs to the CPU wherever it computes; decoding must not keep a GPU idle."""
    device = choose_device(settings)
    storage = open_storage(settings)
    loader = Loader(storage, device, scratch=settings.scratch, max_pixels=1000)
    loaded = loader.load(publish(storage), device.shape)
    assert isinstance(loaded, LoadedModel)
    assert loaded.on_cpu

    async def story() -> None:
        there = replace(loaded, on_cpu=on_cpu)
        with Threads(1, "device") as pool:
            ready = ReadyModel(there, device.shape, pool, alone=lambda: True, max_delay_s=0)
        assert Straight.fits(ready, DetectOptions()) is on_cpu

    asyncio.run(story())


def test_what_is_held_is_loaded_without_being_asked_for(settings: Settings) -> None:
    model = publish(open_storage(settings))

    async def story(pipeline: Pipeline) -> None:
        pipeline.hold([model])
        while "m1" not in (await pipeline.status(AskStatus(1, 1.0))).models:
            await asyncio.sleep(0.01)

    piped(settings, story)


@pytest.mark.parametrize("has_a_name", [True, False])
def test_a_model_that_nobody_has_asked_for_waits_for_no_pinned_shape(
    settings: Settings, has_a_name: bool
) -> None:
    plain = publish(open_storage(settings))
    pinned = msgspec.structs.replace(plain, shape=ONE_STREAM)
    again = msgspec.structs.replace(plain, shape=replace(ONE_STREAM, backend="openvino"))

    async def story(pipeline: Pipeline) -> None:
        async def in_memory(shape: ServingShape) -> None:
            while [each.shape for each in (await pipeline.status(AskStatus(1, 1.0))).served] != [shape]:
                await asyncio.sleep(0.01)

        def name(model: ServedModel) -> None:
            pipeline.hold(*(([model], []) if has_a_name else ([], [model])))

        name(plain)
        await in_memory(pipeline._device.shape)
        name(pinned)
        assert pipeline._stock.stand_in(request(pinned)) == plain
        await in_memory(ONE_STREAM)
        assert pipeline._stock.stand_in(request(pinned)) == pinned
        name(again)
        assert pipeline._stock.stand_in(request(again)) == pinned

    piped(settings, story)


def test_a_model_is_served_in_the_shape_that_is_pinned_to_it(settings: Settings) -> None:
    plain = publish(open_storage(settings))
    pinned = msgspec.structs.replace(plain, shape=ONE_STREAM)

    async def story(pipeline: Pipeline) -> None:
        answers = await asyncio.gather(*(pipeline.detect(request(pinned)) for _ in range(6)))
        one = await pipeline.detect(request(plain))
        assert all(answer.boxes == one.boxes for answer in answers)

    piped(settings, story)


def test_a_plan_from_where_more_was_possible_is_left_aside(settings: Settings) -> None:
    device = choose_device(settings)
    model = ServedModel("m1", publish(open_storage(settings)).record, ())
    many = replace(ONE_STREAM, streams=1000)
    nowhere, gone = replace(ONE_STREAM, precision=Precision.FP16), replace(ONE_STREAM, backend="of tomorrow")
    assert device.shape_of(model) == device.shape
    assert device.shape_of(msgspec.structs.replace(model, shape=ONE_STREAM)) == ONE_STREAM
    here = device.shape_of(msgspec.structs.replace(model, shape=many))
    assert (here.streams, here.threads) == (num_cores(), 1)
    wide = device.shape_of(msgspec.structs.replace(model, shape=replace(ONE_STREAM, threads=1000)))
    assert (wide.streams, wide.threads) == (1, num_cores())
    for impossible in (nowhere, gone):
        assert device.shape_of(msgspec.structs.replace(model, shape=impossible)) == device.shape


def test_a_bad_picture_is_named_on_the_short_way(settings: Settings) -> None:
    model = publish(open_storage(settings))

    async def story(pipeline: Pipeline) -> None:
        with pytest.raises(DamagedImageError):
            await pipeline.detect(request(model, PICTURE[:400]))
        assert (await pipeline.detect(request(model))).width == 150

    piped(settings, story)


def test_a_large_picture_takes_the_long_way_and_gets_the_same_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = publish(open_storage(settings))
    answers: list[Detected] = []

    async def story(pipeline: Pipeline) -> None:
        answers.append(await pipeline.detect(request(model)))

    piped(settings, story)
    monkeypatch.setattr("app.engine.two_lanes.ORDINARY_PIXELS", 100)
    piped(settings, story)
    assert answers[0].boxes == answers[1].boxes


@pytest.mark.parametrize("most_pixels", [100, 10**6], ids=["the long way", "the short way"])
@pytest.mark.parametrize("wide", [True, False])
def test_a_lone_picture_gets_as_many_threads_as_are_quicker_now(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, most_pixels: int, wide: bool
) -> None:
    noted: list[bool] = []
    inferred: list[Predictor] = []
    infer = Predictor.infer

    class Decided(Width):
        def is_wide(self) -> bool:
            return wide

        def note(self, took_s: float, *, wide: bool) -> None:
            noted.append(wide)

    def spied(self: Predictor, batch: Sequence[Prepared]) -> list[Inferred]:
        inferred.append(self)
        return infer(self, batch)

    shape = ServingShape("onnxruntime", Precision.FP32, streams=2, threads=1, batch_size=1)
    model = msgspec.structs.replace(publish(open_storage(settings)), shape=shape)

    async def story(pipeline: Pipeline) -> None:
        await pipeline.prepare(Prepare(1, 20, model))
        monkeypatch.setattr(Predictor, "infer", spied)
        await pipeline.detect(request(model))
        (ready,) = await pipeline._stock.for_passes(request(model), model)
        assert inferred == [ready.loaded.predictor if wide else ready.loaded.narrow]
        assert noted == [wide]

    monkeypatch.setattr("app.engine.two_lanes.ORDINARY_PIXELS", most_pixels)
    monkeypatch.setattr("app.engine.stock.Width", Decided)
    monkeypatch.setattr("app.engine.device.num_cores", lambda: 2)
    piped(settings, story)


def test_pictures_of_all_sizes_share_a_threads_buffer_and_no_pixel(settings: Settings) -> None:
    model = publish(open_storage(settings))
    pictures = [png(noise(10 + 37 * number, 200 - 23 * number, seed=number)) for number in range(8)]

    async def story(pipeline: Pipeline) -> None:
        together = await asyncio.gather(*(pipeline.detect(request(model, each)) for each in pictures))
        for each, answer in zip(pictures, together, strict=True):
            fresh = Pipeline(settings, open_storage(settings))
            assert (await fresh.detect(request(model, each))).boxes == answer.boxes

    piped(settings, story)


def test_who_left_while_a_picture_was_decoded_costs_no_inference(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = publish(open_storage(settings))
    decoding, go_on = threading.Event(), threading.Event()
    inferred: list[int] = []
    prepare, infer = Predictor.prepare, Predictor.infer

    def slow(self: Predictor, *args: object, **kwargs: object) -> object:
        decoding.set()
        assert go_on.wait(10)
        return prepare(self, *args, **kwargs)  # type: ignore[arg-type]

    def counted(self: Predictor, batch: object) -> object:
        inferred.append(1)
        return infer(self, batch)  # type: ignore[arg-type]

    async def story(pipeline: Pipeline) -> None:
        await pipeline.prepare(Prepare(1, 20, model))
        monkeypatch.setattr(Predictor, "prepare", slow)
        monkeypatch.setattr(Predictor, "infer", counted)
        gone = asyncio.create_task(pipeline.detect(request(model)))
        await asyncio.to_thread(decoding.wait, 10)
        gone.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert inferred == []
        assert pipeline.admission.images == 0

    piped(settings, story)


def test_a_classifier_is_no_detector_and_the_other_way_round(settings: Settings) -> None:
    model = publish(open_storage(settings))

    async def story(pipeline: Pipeline) -> None:
        with pytest.raises(RefusedError, match="no classifier") as refused:
            await pipeline.detect(msgspec.structs.replace(request(model), classifier=model))
        assert refused.value.reason is Refusal.MODEL_UNAVAILABLE

    piped(settings, story)


def test_who_is_told_an_answer_is_counted_no_more(settings: Settings) -> None:
    model = publish(open_storage(settings))
    counted: list[int] = []

    async def story(pipeline: Pipeline) -> None:
        await pipeline.detect(request(model), tell=lambda _: counted.append(pipeline.admission.images))
        drawn = msgspec.structs.replace(request(model), annotate=True)
        await pipeline.detect(drawn, tell=lambda _: counted.append(9))
        assert counted == [0], "what is still drawn upon is no answer"

    piped(settings, story)
