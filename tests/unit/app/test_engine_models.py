"""Models in the engine's memory: loaded once, checked, evicted; a bad one is an answer, not a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import torch

from app.detect.wire import Refusal, ServedModel, WeightsFile
from app.engine.device import choose_device
from app.engine.loader import LoadedModel, Loader
from app.engine.models import RETRY_S, ModelCache
from app.engine.refusal import RefusedError
from app.engine.unusable_setting import UnusableSettingError
from app.settings import Settings
from app.storage import Storage, open_storage
from detection.inference.serving import Precision, ServingShape
from detection.model_record import ModelRecord
from tests.published import publish, publish_weights

SHAPE = ServingShape("onnxruntime", Precision.FP32, streams=2, threads=1, batch_size=1)
RECORD = ModelRecord(architecture="yolox-nano", classes=("cat",), input_size_hw=(64, 64))


@dataclass(frozen=True)
class Weight:
    """Stands for a loaded model."""

    name: str
    size_bytes: int = 10


def named(name: str) -> ServedModel:
    return ServedModel(name, RECORD, ())


class Disk:
    """Loads when it is allowed to, and counts."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.gate = asyncio.Event()

    async def load(self, model: ServedModel, shape: ServingShape) -> Weight:
        self.loaded.append(model.id)
        await self.gate.wait()
        if model.id == "broken":
            raise RuntimeError("cannot be read")
        return Weight(model.id)


def test_many_who_ask_first_cause_one_load() -> None:
    async def story() -> None:
        disk = Disk()
        cache = ModelCache(disk.load, max_bytes=100)
        asking = [asyncio.create_task(cache.get(named("a"), SHAPE)) for _ in range(5)]
        await asyncio.sleep(0)
        asking[0].cancel()
        disk.gate.set()
        found = await asyncio.gather(*asking[1:])
        assert {id(weight) for weight in found} == {id(await cache.get(named("a"), SHAPE))}
        assert disk.loaded == ["a"]

    asyncio.run(story())


def test_the_least_recently_used_go_first_and_the_newest_stays() -> None:
    async def story() -> None:
        disk = Disk()
        disk.gate.set()
        cache = ModelCache(disk.load, max_bytes=25)
        for name in ("a", "b", "a", "c"):
            await cache.get(named(name), SHAPE)
        assert cache.ids == ("a", "c")
        assert cache.size_bytes == 20
        tiny = ModelCache(disk.load, max_bytes=1)
        await tiny.get(named("a"), SHAPE)
        await tiny.get(named("b"), SHAPE)
        assert tiny.ids == ("b",)

    asyncio.run(story())


def test_a_load_that_failed_is_an_answer_and_is_tried_again() -> None:
    async def story() -> None:
        disk = Disk()
        disk.gate.set()
        cache = ModelCache(disk.load, max_bytes=25)
        for _ in range(2):
            with pytest.raises(RefusedError) as refused:
                await cache.get(named("broken"), SHAPE)
            assert refused.value.reason is Refusal.MODEL_UNAVAILABLE
            assert "cannot be read" not in refused.value.message
        assert disk.loaded == ["broken", "broken"]
        assert (await cache.get(named("a"), SHAPE)).name == "a"

    asyncio.run(story())


def test_what_is_not_wanted_any_more_goes_unless_it_is_held() -> None:
    async def story() -> None:
        disk = Disk()
        disk.gate.set()
        cache = ModelCache(disk.load, max_bytes=100)
        for name in ("a", "b"):
            await cache.get(named(name), SHAPE)
        cache.hold([(named("a"), SHAPE)])
        for name in ("a", "b", "never there"):
            cache.drop(named(name), SHAPE)
        assert cache.ids == ("a",)

    asyncio.run(story())


def test_what_is_held_is_loaded_unasked_and_never_evicted() -> None:
    async def story() -> None:
        disk = Disk()
        disk.gate.set()
        cache = ModelCache(disk.load, max_bytes=25)
        cache.hold([(named("a"), SHAPE), (named("broken"), SHAPE)])
        assert cache.find(named("a"), SHAPE) is None
        await cache.get(named("a"), SHAPE)
        assert sorted(disk.loaded) == ["a", "broken"]
        for name in ("b", "c", "d"):
            await cache.get(named(name), SHAPE)
        assert cache.ids == ("a", "d")
        cache.hold([])
        await cache.get(named("e"), SHAPE)
        assert cache.ids == ("d", "e")

    asyncio.run(story())


def test_what_is_expected_is_loaded_unasked_while_there_is_room_and_evicted_like_any_other() -> None:
    async def story() -> None:
        disk = Disk()
        disk.gate.set()
        cache = ModelCache(disk.load, max_bytes=25)
        cache.expect([(named(name), SHAPE) for name in ("broken", "a", "b", "c", "never")])
        cache.expect([(named(name), SHAPE) for name in ("broken", "a", "b", "c", "d")])
        while len(disk.loaded) < 4:
            await asyncio.sleep(0)
        await cache.get(named("e"), SHAPE)
        assert disk.loaded == ["broken", "a", "b", "c", "e"], "each once, and none when there is no more room"
        assert cache.ids == ("c", "e")
        cache.expect([(named("a"), SHAPE)])
        await asyncio.sleep(0.01)
        assert "a" in cache.ids

    asyncio.run(story())


def test_what_is_held_takes_its_room_before_what_is_expected() -> None:
    async def story() -> None:
        disk = Disk()
        disk.gate.set()
        cache = ModelCache(disk.load, max_bytes=20)
        cache.hold([(named(name), SHAPE) for name in ("a", "b")])
        cache.expect([(named("never"), SHAPE)])
        await asyncio.sleep(0.01)
        assert disk.loaded == ["a", "b"]

    asyncio.run(story())


def test_a_new_list_of_what_is_expected_does_not_end_with_the_former_one() -> None:
    async def story() -> None:
        disk = Disk()
        disk.gate.set()
        cache = ModelCache(disk.load, max_bytes=15)
        await cache.get(named("asked for"), SHAPE)
        disk.gate.clear()
        cache.expect([(named("a"), SHAPE), (named("never"), SHAPE)])
        while len(disk.loaded) < 2:
            await asyncio.sleep(0)
        cache.expect([(named("b"), SHAPE), (named("never"), SHAPE)])
        disk.gate.set()
        await asyncio.sleep(0.01)
        assert disk.loaded == ["asked for", "a", "b"]

    asyncio.run(story())


def test_a_model_is_loaded_beside_while_nobody_waits() -> None:
    async def story() -> None:
        disk = Disk()
        cache = ModelCache(disk.load, max_bytes=25)
        for _ in range(2):
            cache.load_beside(named("a"), SHAPE)
        disk.gate.set()
        await cache.get(named("a"), SHAPE)
        assert cache.find(named("a"), SHAPE) is not None
        assert disk.loaded == ["a"]

    asyncio.run(story())


def test_what_could_not_be_loaded_is_not_begun_anew_by_every_request() -> None:
    async def story() -> None:
        disk, now = Disk(), [100.0]
        disk.gate.set()
        cache = ModelCache(disk.load, max_bytes=25, clock=lambda: now[0])

        async def requests(count: int) -> int:
            for _ in range(count):
                cache.load_beside(named("broken"), SHAPE)
                for _ in range(5):
                    await asyncio.sleep(0)
            return len(disk.loaded)

        assert await requests(3) == 1
        now[0] += RETRY_S
        assert await requests(3) == 2
        cache.hold([(named("broken"), SHAPE)])
        assert await requests(1) == 3, "who holds it may know that it is whole again"

    asyncio.run(story())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, device="cpu")


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return open_storage(settings)


def load(
    settings: Settings, storage: Storage, model: ServedModel, backend: str = "onnxruntime"
) -> LoadedModel:
    device = choose_device(settings.model_copy(update={"backend": backend}))
    loader = Loader(storage, device, scratch=settings.scratch, max_pixels=1000)
    loaded = loader.load(model, device.shape_of(model))
    assert isinstance(loaded, LoadedModel)
    return loaded


@pytest.mark.parametrize(("backend", "publish_it"), [("onnxruntime", publish), ("eager", publish_weights)])
def test_a_published_model_is_loaded_and_nothing_is_left_behind(
    settings: Settings, storage: Storage, backend: str, publish_it: Callable[[Storage], ServedModel]
) -> None:
    loaded = load(settings, storage, publish_it(storage), backend)
    assert loaded.predictor.record.architecture == "yolox-nano"
    assert loaded.size_bytes > 0
    assert list(settings.scratch.iterdir()) == []


def test_a_torch_module_computes_with_the_threads_of_its_shape(
    settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan has measured it so."""
    loader = Loader(storage, choose_device(settings), scratch=settings.scratch, max_pixels=1000)
    shape = ServingShape("eager", Precision.FP32, streams=1, threads=3, batch_size=1)
    loaded = loader.load(publish_weights(storage), shape)
    assert isinstance(loaded, LoadedModel)
    assert loaded.narrow is loaded.predictor
    backend = loaded.predictor.backend
    monkeypatch.setattr(backend, "_compute", lambda images: (torch.tensor(torch.get_num_threads()),))
    assert backend.run(torch.zeros(1, 3, 64, 96))[0].item() == 3


@pytest.mark.parametrize(
    ("is_pinned", "learns", "served"),
    [(True, True, 4), (False, True, 2), (False, False, 4)],
    ids=["a plan has measured it", "it is learned", "a setting says it"],
)
def test_a_batch_is_as_large_as_was_decided_and_only_else_as_large_as_is_learned(
    settings: Settings,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    is_pinned: bool,
    learns: bool,
    served: int,
) -> None:
    monkeypatch.setattr("app.engine.loader.learn_batch_size", lambda run, *, most: most // 2)
    shape = ServingShape("onnxruntime", Precision.FP32, streams=1, threads=1, batch_size=4)
    device = replace(choose_device(settings), learns_batch_size=learns)
    loader = Loader(storage, device, scratch=settings.scratch, max_pixels=1000)
    model = msgspec.structs.replace(publish(storage), shape=shape if is_pinned else None)
    loaded = loader.load(model, shape)
    assert isinstance(loaded, LoadedModel)
    assert loaded.batch_size == served


def lose(storage: Storage, file: WeightsFile) -> None:
    storage.delete(file.key)


def damage(storage: Storage, file: WeightsFile) -> None:
    path = storage.local_path(file.key, Path())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("harm", "word"), [(lose, "lost"), (damage, "damaged")])
def test_a_file_that_is_lost_or_damaged_is_named(
    settings: Settings,
    storage: Storage,
    harm: Callable[[Storage, WeightsFile], None],
    word: str,
) -> None:
    model = publish(storage)
    for file in model.files:
        harm(storage, file)
    with pytest.raises(RefusedError, match=word) as refused:
        load(settings, storage, model)
    assert refused.value.reason is Refusal.MODEL_UNAVAILABLE


def test_a_model_without_the_needed_format_is_named(settings: Settings, storage: Storage) -> None:
    with pytest.raises(RefusedError, match="has no onnx file"):
        load(settings, storage, named("a"))


def test_a_cpu_gets_single_pictures_on_streams(settings: Settings) -> None:
    shape = choose_device(settings).shape
    assert (shape.backend, shape.batch_size) == ("onnxruntime", 1)
    assert shape.streams >= 1
    assert choose_device(settings.model_copy(update={"backend": "eager"})).shape.streams == 1
    assert choose_device(settings.model_copy(update={"engine_batch_size": 4})).shape.batch_size == 4


def test_a_backend_that_does_not_exist_is_named(settings: Settings) -> None:
    for name, problem in [
        ("onx", "unknown backend 'onx'"),
        ("onnxruntime:fp61", "unknown precision 'fp61'"),
        ("onnxruntime:bf16", "does not compute in bf16 on cpu"),
        ("tensorrt", "is not installed here"),
    ]:
        with pytest.raises(UnusableSettingError) as refused:
            choose_device(settings.model_copy(update={"backend": name}))
        assert str(refused.value).startswith(f"HARRIER_BACKEND={name}: ")
        assert problem in str(refused.value)
        assert "What works here on cpu: eager, onnxruntime" in str(refused.value)


def test_a_device_that_does_not_exist_is_named(settings: Settings) -> None:
    with pytest.raises(UnusableSettingError, match=r"HARRIER_DEVICE: device '77': .*there are: auto, .*cpu"):
        choose_device(settings.model_copy(update={"device": "77"}))
