"""A faster backend takes over only after it has found what is found today, and a restart knows it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from structlog.testing import capture_logs

from app.detect.wire import ChosenBy, Refusal, ServedModel
from app.engine import device, probation
from app.engine.acceptances import Acceptance, Acceptances
from app.engine.device import choose_device
from app.engine.loader import LoadedModel
from app.engine.probation import PICTURES, Probation
from app.engine.refusal import RefusedError
from app.settings import Settings
from detection.detections import Detections
from detection.errors import DamagedImageError
from detection.images import DecodedImage, ImageHeader
from detection.inference.agreement import Agreement
from detection.inference.predictor import DetectOptions, Inferred, Prediction, Predictor, Prepared, Timing
from detection.inference.serving import Precision, ServingShape
from detection.model_record import ModelRecord
from detection.preprocess import FittedImage, Placement
from detection.tasks import Task

RECORD = ModelRecord(architecture="yolox-nano", classes=("cat",), input_size_hw=(64, 64))
MODEL = ServedModel("m1", RECORD, ())
OWN = ServingShape("onnxruntime", Precision.FP32, streams=2, threads=1, batch_size=1)
FAST = replace(OWN, backend="openvino", precision=Precision.BF16)


PREPARED = Prepared(
    FittedImage(np.zeros((3, 64, 64), np.float32), Placement(scale_x=1.0, scale_y=1.0)), 64, 64, 1.0, 1.0
)


class Looking(Predictor):
    """Finds two boxes in every picture, so many pixels from where they are, in so many milliseconds."""

    def __init__(self, *, off: float = 0.0, ms: float = 10.0, batch: int = 1, batch_ms: float = 0.0) -> None:
        self._off, self._ms, self.batch, self._batch_ms = off, ms, batch, batch_ms
        self.pictures: list[bytes] = []
        self.batches: list[int] = []

    def prepare(
        self,
        picture: bytes | DecodedImage,
        *,
        header: ImageHeader | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> Prepared:
        assert isinstance(picture, bytes)
        if picture == b"broken":
            raise DamagedImageError("broken")
        self.pictures.append(picture)
        return PREPARED

    def detect(
        self, batch: Sequence[Prepared], options: DetectOptions, *, plain: Sequence[Inferred] = ()
    ) -> list[Prediction]:
        boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]]) + self._off
        found = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]))
        timing = Timing(decode_ms=1, preprocess_ms=1, inference_ms=self._ms, postprocess_ms=1, batch_size=1)
        return [Prediction(detections=found, width=64, height=64, timing=timing) for _ in batch]

    def infer(self, batch: Sequence[Prepared]) -> list[Inferred]:
        self.batches.append(len(batch))
        return [Inferred(torch.zeros(0, 4), torch.zeros(0, 1), self._batch_ms, len(batch)) for _ in batch]


class House:
    """An engine with one model in two shapes."""

    def __init__(
        self, file: Path, *, tried: Looking | RefusedError, own: Looking | None = None, idle: bool = True
    ) -> None:
        self.own, self.tried, self.idle, self.swaps = own or Looking(), tried, idle, 0
        self.lost: list[ServingShape] = []
        self.known = Acceptances(file, hardware="a card")
        self.probation = Probation(
            self.known,
            own=lambda model: model.shape or OWN,
            candidates=[FAST],
            load=self._load,
            may_try=lambda model, shape: self.idle,
            swapped=self._swapped,
            lost=lambda model, shape: self.lost.append(shape),
        )

    async def _load(self, model: ServedModel, shape: ServingShape) -> LoadedModel:
        found = self.own if shape == OWN else self.tried
        if isinstance(found, RefusedError):
            raise found
        return LoadedModel(found, found, size_bytes=1, batch_size=found.batch)

    def _swapped(self) -> None:
        self.swaps += 1

    async def answer(self, *pictures: bytes, model: ServedModel = MODEL) -> ServingShape:
        """Answer pictures as the engine does, and return how the model is served afterwards."""
        for picture in pictures:
            self.probation.shape_of(model)
            self.probation.saw(model, picture)
            while self.probation._running is not None:
                await asyncio.sleep(0.001)
        return self.probation.shape_of(model)


def pictures(count: int = PICTURES) -> list[bytes]:
    return [f"picture {index}".encode() for index in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "accepted.json"


def test_who_agrees_and_is_faster_takes_over_and_a_restart_knows_it(file: Path) -> None:
    async def story() -> None:
        house = House(file, tried=Looking(off=0.3, ms=8.0))
        assert await house.answer(*pictures(PICTURES - 1)) == OWN
        trial = f"openvino:bf16 is on trial, {PICTURES - 1} of {PICTURES} pictures compared"
        assert house.probation.why(MODEL) == (ChosenBy.DEFAULT, trial)
        assert await house.answer(b"the last") == FAST
        assert (house.swaps, house.lost) == (1, [OWN])
        known = house.known.find("m1", FAST)
        assert known is not None
        assert (known.accepted, known.reason) == (True, "64 of 64 boxes agree, 8.0 ms instead of 10.0 ms")
        assert house.probation.why(MODEL) == (
            ChosenBy.COMPARISON,
            f"openvino:bf16 was accepted: {known.reason}",
        )
        again = House(file, tried=Looking())
        assert again.probation.shape_of(MODEL) == FAST
        await again.answer(*pictures())
        assert again.own.pictures == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("tried", "lasts"),
    [
        (Looking(off=5.0, ms=8.0), True),
        (Looking(ms=9.9), False),
        (RefusedError(Refusal.MODEL_UNAVAILABLE, "cannot be loaded"), False),
    ],
    ids=["other boxes", "not faster", "cannot be loaded"],
)
def test_who_does_not_is_not_asked_again(file: Path, tried: Looking | RefusedError, lasts: bool) -> None:
    async def story() -> None:
        house = House(file, tried=tried)
        assert await house.answer(*pictures()) == OWN
        known = house.known.find("m1", FAST)
        assert known is not None
        assert not known.accepted
        assert house.probation.why(MODEL) == (
            ChosenBy.DEFAULT,
            f"openvino:bf16 was turned down: {known.reason}",
        )
        assert (house.swaps, house.lost) == (0, [FAST])
        looked = len(house.own.pictures)
        await house.answer(b"another")
        assert len(house.own.pictures) == looked
        assert (Acceptances(file, hardware="a card").find("m1", FAST) == known) is lasts

    asyncio.run(story())


def test_only_new_and_whole_pictures_count_and_only_while_nothing_waits(file: Path) -> None:
    async def story() -> None:
        house = House(file, tried=Looking(ms=1.0))
        assert await house.answer(*[b"the same"] * 40, *[b"broken"]) == OWN
        assert house.own.pictures == [b"the same"]
        house.idle = False
        await house.answer(*pictures())
        assert house.own.pictures == [b"the same"]
        house.idle = True
        assert await house.answer(*pictures()) == FAST

    asyncio.run(story())


def test_what_is_pinned_and_what_is_no_detector_is_left_alone(file: Path) -> None:
    async def story() -> None:
        house = House(file, tried=Looking(ms=1.0))
        pinned = ServedModel("m2", RECORD, (), shape=replace(OWN, streams=1))
        assert await house.answer(*pictures(), model=pinned) == pinned.shape
        classifier = ServedModel("m3", replace(RECORD, task=Task.CLASSIFY), ())
        assert await house.answer(*pictures(), model=classifier) == OWN
        assert house.own.pictures == []

    asyncio.run(story())


def test_a_trial_that_sees_nothing_ends(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        house = House(file, tried=Looking(ms=1.0))
        assert await house.answer(*[f"broken {index}".encode() for index in range(3)]) == OWN
        known = house.known.find("m1", FAST)
        assert known is not None
        assert not known.accepted

    monkeypatch.setattr(probation, "MOST_PICTURES", 3)
    monkeypatch.setattr(Agreement, "says_enough", False)
    asyncio.run(story())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{broken",
        b"[]",
        b'{"a": {"accepted": "yes"}}',
        b'{"\xff": 1}',
        b"\0" * 9,
        b'{"a":{"b":' + b"[" * 9999,
    ],
    ids=["empty", "cut off", "no object", "wrong types", "no UTF-8", "zeros", "deep"],
)
def test_a_file_that_cannot_be_read_is_begun_anew(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    with capture_logs() as lines:
        known = Acceptances(file, hardware="a card")
    assert [line["log_level"] for line in lines] == ["warning"]
    known = Acceptances(file, hardware="a card")
    assert known.find("m1", FAST) is None
    known.add("m1", FAST, Acceptance(True, "64 of 64", Agreement(pictures=16, boxes=64, same=64)))
    assert Acceptances(file, hardware="a card").find("m1", FAST) == known.find("m1", FAST)
    assert Acceptances(file, hardware="a card").find("m1", OWN) is None
    assert Acceptances(file, hardware="another card").find("m1", FAST) is None
    assert {path.suffix for path in file.parent.iterdir()} == {".json", ".lock"}


def test_several_engines_keep_one_file(file: Path) -> None:
    engines = [Acceptances(file, hardware="a card") for _ in range(4)]
    found = Acceptance(True, "64 of 64", Agreement(pictures=16, boxes=64, same=64))

    def settle(engine: Acceptances, name: str) -> None:
        for number in range(5):
            engine.add(f"{name}{number}", FAST, found)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(settle, engines, "abcd"))
    known = Acceptances(file, hardware="a card")
    assert all(known.find(f"{name}{number}", FAST) == found for name in "abcd" for number in range(5))


def test_a_file_that_cannot_be_written_leaves_nothing_half_written(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Acceptance(True, "64 of 64", Agreement(pictures=16, boxes=64, same=64))
    Acceptances(file, hardware="a card").add("m1", FAST, found)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    known = Acceptances(file, hardware="a card")
    known.add("m2", FAST, found)
    assert known.find("m2", FAST) == found
    assert Acceptances(file, hardware="a card").find("m1", FAST) == found
    assert {path.name for path in file.parent.iterdir()} == {"accepted.json", "accepted.lock"}


@pytest.mark.parametrize(
    ("tried", "accepted"),
    [
        (Looking(ms=10.2, batch=8, batch_ms=30.0), True),
        (Looking(ms=5.0, batch=8, batch_ms=59.0), False),
        (Looking(ms=12.0, batch=8, batch_ms=30.0), False),
    ],
    ids=["faster", "only a lone picture is faster", "a lone picture would wait"],
)
def test_where_batches_are_served_a_full_one_decides(file: Path, tried: Looking, accepted: bool) -> None:
    async def story() -> None:
        house = House(file, own=Looking(batch=16, batch_ms=60.0), tried=tried)
        assert await house.answer(*pictures()) == (FAST if accepted else OWN)
        assert set(house.own.batches) == set(tried.batches) == {8}, "the same for both"

    asyncio.run(story())


def test_what_is_tried_depends_on_the_kind_of_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda", 0)
    monkeypatch.setattr(device, "select_devices", lambda spec: (card,))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Fast Card")
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=40 * 2**30)
    )
    settings = Settings(home=tmp_path, device="auto")
    chosen = choose_device(settings)
    assert [shape.executor for shape in chosen.candidates] == ["eager:fp16"]
    assert (chosen.shape.executor, chosen.hardware, chosen.model_bytes) == ("eager", "Fast Card", 10 * 2**30)
    half = chosen.candidates[0]
    assert chosen.any_size_shape(half) == half, "views of other sizes need no second copy"
    assert choose_device(settings.model_copy(update={"backend": "eager"})).candidates == ()
    assert choose_device(settings.model_copy(update={"engine_model_bytes": 5})).model_bytes == 5


def test_candidates_are_proven_and_only_where_nobody_has_chosen(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, device="cpu")
    shape = choose_device(settings).shape
    assert set(choose_device(settings).candidates) <= {
        replace(shape, backend="openvino", precision=Precision.BF16)
    }
    assert choose_device(settings.model_copy(update={"backend": "onnxruntime"})).candidates == ()


def test_a_trial_that_breaks_down_is_not_gone_on_with(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def break_down(*_: object) -> None:
        compared.append(1)
        raise RuntimeError("the backend cannot compute this")

    monkeypatch.setattr(probation, "_compare", break_down)

    async def story() -> None:
        house = House(file, tried=Looking(ms=8.0))
        assert await house.answer(*pictures()) == OWN
        assert (len(compared), house.lost) == (1, [FAST])
        assert house.known.find("m1", FAST) is None

    asyncio.run(story())
