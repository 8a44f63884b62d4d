"""A whole training in small: how it starts, what it survives, what it refuses."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detection.data.records import Split
from detection.errors import (
    CheckpointError,
    ConfigError,
    DeviceError,
    DeviceMemoryError,
    TrainingDivergedError,
    WeightsError,
)
from detection.models import create_model
from detection.models.detector import TrainingMoment
from detection.models.yolox import YoloX
from detection.targets import Targets
from detection.training import feed
from detection.training.checkpoints import Payload
from detection.training.config import (
    EarlyStoppingConfig,
    EmaConfig,
    FreezeConfig,
    Precision,
    WeightInitConfig,
    WeightInitKind,
)
from detection.training.job import TrainingJob
from detection.training.run import CHECKPOINTS, MEMORY_NOTE, TrainingResult, open_checkpoints, train
from detection.training.session import TRANSFER_NOTE, autocast_dtype
from detection.training.state import StopReason, StopRequest
from tests.small_job import Series, final_digest, small_job

Whole = tuple[TrainingResult, Series, Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A training that nobody disturbs: its result, what it told, and its folder."""
    torch.set_num_threads(1)
    folder, series = tmp_path_factory.mktemp("whole"), Series()
    return train(small_job(folder), reporter=series), series, folder


def test_a_training_tells_what_it_does(whole: Whole) -> None:
    result, series, _ = whole
    assert result.reason is StopReason.COMPLETED
    assert series.stages == ["preparing", "training", *["evaluating", "training"] * 3]
    assert series.starts == [0]
    assert series.checkpoints == [3, 6, 9]
    first, *rest = series.lines
    assert "torch" in first
    assert first.endswith(", CPU")
    assert rest[0] == "seed 0, deterministic kernels"
    assert rest[1] == "weights start at random (default)"
    assert rest[2].startswith("9 steps from random weights teach a network hardly anything")
    assert rest[3].startswith("Model Summary: ")
    assert rest[-1].startswith("trained on ")
    assert set(series.rows[1]) == {
        *("epoch", "loss", "box", "objectness", "class", "l1", "assigned", "lr"),
    }
    assert {"ap", "ap50"} <= set(series.rows[3])


def test_what_is_frozen_is_said_and_does_not_count_as_learning(tmp_path: Path) -> None:
    job = small_job(tmp_path, freeze=FreezeConfig(parts=("backbone",), epochs=1))
    _, lines = after_one_step(replace(job, notes=("crops: two",)))
    assert lines[1] == "crops: two"
    frozen = next(number for number, line in enumerate(lines) if line.startswith("frozen for "))
    assert lines[frozen].endswith(": backbone")
    parameters, gradients = re.findall(r"([0-9,]+) (?:parameters|gradients)", lines[frozen + 1])
    network = create_model(job.config.architecture, num_classes=2)
    backbone = sum(each.numel() for each in network.parts()["backbone"].parameters())
    assert int(parameters.replace(",", "")) - int(gradients.replace(",", "")) == backbone


def test_losses_add_up_and_l1_is_there_in_the_tail_only(whole: Whole) -> None:
    for step, row in whole[1].rows.items():
        parts = [row[name] for name in ("box", "objectness", "class", "l1")]
        assert row["loss"] == pytest.approx(sum(parts), rel=1e-5)
        assert (row["l1"] > 0) == (step > 6)


def test_the_best_and_the_last_two_are_kept(whole: Whole) -> None:
    result, _, folder = whole
    steps = {int(path.name.split("-")[1]) for path in (folder / CHECKPOINTS).glob("*.pt")}
    assert steps == {6, 9, result.state.best_step}


def test_without_a_validation_split_nothing_is_measured(tmp_path: Path) -> None:
    job, series = small_job(tmp_path, val=0), Series()
    result = train(job, reporter=series)
    assert result.state.best_step is None
    assert "evaluating" not in series.stages
    best = open_checkpoints(job, log=lambda line: None).load_best()
    assert best is not None
    assert best["state"]["step"] == 9


def after_one_step(job: TrainingJob) -> tuple[Payload, list[str]]:
    """Return the checkpoint after a step at rate 0, which leaves the weights as they start, and the log."""
    series = Series()
    train(job, reporter=series, requests=lambda: StopRequest.DRAIN if series.rows else None)
    payload = open_checkpoints(job, log=series.on_log).load_latest()
    assert payload is not None
    return payload, series.lines


def test_a_training_that_is_stopped_before_its_first_step_leaves_nothing(tmp_path: Path) -> None:
    result = train(small_job(tmp_path), requests=lambda: StopRequest.DRAIN)
    assert (result.reason, result.state.step) == (StopReason.DRAINED, 0)
    assert open_checkpoints(small_job(tmp_path), log=lambda line: None).load_latest() is None


def test_weights_may_start_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = create_model("yolox-nano", num_classes=7)
    path = tmp_path / "weights.pth"
    torch.save({"model": source.state_dict()}, path)
    job = replace(small_job(tmp_path / "run", init="model-7", init_exclude=("stem",)), initial_weights=path)
    payload, lines = after_one_step(job)
    taken = [
        name for name, value in source.state_dict().items() if torch.equal(payload["model"][name], value)
    ]
    assert not any("stem" in name and "conv.weight" in name for name in taken)
    assert "backbone.backbone.dark2.0.dconv.conv.weight" in taken
    assert any("weights start from model-7" in line for line in lines)
    assert any("head.cls_preds.0.weight" in line for line in lines)
    assert any(line.startswith("excluded by `init_exclude`: backbone.backbone.stem") for line in lines)
    note = json.loads((job.folder / TRANSFER_NOTE).read_bytes())
    assert (note["init"], note["counts"]["mismatched"], note["counts"]["left"]) == ("model-7", 6, 0)
    assert all("stem" in name for name in note["excluded"])
    assert "head.cls_preds.0.weight" in note["mismatched"]
    assert sum(note["counts"][kind] for kind in ("taken", "missing", "mismatched")) == len(payload["model"])


def test_weights_of_a_sibling_are_taken_as_far_as_they_fit(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": create_model("yolox-s", num_classes=2).state_dict()}, path)
    job = replace(small_job(tmp_path / "run", init="model-s"), initial_weights=path)
    payload, lines = after_one_step(job)
    assert f"9 of {len(payload['model'])} weights start from model-s" in lines
    assert any("none of them is the kernel of a convolution" in line for line in lines)
    assert any(line.startswith("not taken, for the detector has nothing of that name") for line in lines)


def test_weights_of_a_stranger_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": create_model("nanodet-plus-m", num_classes=2).state_dict()}, path)
    job = replace(small_job(tmp_path / "run", init="model-n"), initial_weights=path)
    with pytest.raises(WeightsError, match="none of the"):
        train(job)


def test_weights_may_be_drawn_in_several_ways(tmp_path: Path) -> None:
    def first_weights(name: str, config: WeightInitConfig) -> Tensor:
        job = small_job(tmp_path / name, weight_init=config)
        payload, _ = after_one_step(job)
        weight: Tensor = payload["model"]["backbone.backbone.stem.conv.conv.weight"]
        return weight

    kind = WeightInitKind.ORTHOGONAL
    drawn = first_weights("drawn", WeightInitConfig(kind=kind))
    assert not torch.equal(drawn, first_weights("default", WeightInitConfig()))
    assert torch.equal(drawn, first_weights("again", WeightInitConfig(kind=kind)))


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        job = small_job(tmp_path / name, epochs=1, seed=seed)
        train(job)
        digests.append(final_digest(job))
    assert digests[0] == digests[1] != digests[2]


class SpoiledFeed:
    """Feeds NaN at a step, a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, times: int) -> None:
        self.left = times
        original = feed.TrainingFeed.batches

        def batches(
            self_: feed.TrainingFeed, plan: Any, *, start_step: int
        ) -> Iterator[tuple[Tensor, Targets]]:
            first = plan.first_step + start_step
            for number, (images, targets) in enumerate(original(self_, plan, start_step=start_step), first):
                if number == step and self.left:
                    self.left -= 1
                    images = images * math.nan
                yield images, targets

        monkeypatch.setattr(feed.TrainingFeed, "batches", batches)


def test_a_loss_that_is_not_finite_goes_back_with_a_lower_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Whole
) -> None:
    SpoiledFeed(monkeypatch, step=4, times=2)
    series = Series()
    result = train(small_job(tmp_path), reporter=series)
    assert result.reason is StopReason.COMPLETED
    assert (result.state.recoveries, result.state.lr_factor) == (2, 0.25)
    assert series.starts == [0, 3, 3]
    assert list(series.rows) == list(range(1, 10))
    assert series.rows[3] == whole[1].rows[3]
    assert series.rows[5]["lr"] == pytest.approx(0.25 * whole[1].rows[5]["lr"])
    assert sum("going back to the last checkpoint" in line for line in series.lines) == 2


def test_a_loss_that_is_not_finite_before_any_checkpoint_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SpoiledFeed(monkeypatch, step=1, times=1)
    series = Series()
    result = train(small_job(tmp_path), reporter=series)
    assert series.starts == [0, 0]
    assert result.state.recoveries == 1


def test_three_recoveries_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SpoiledFeed(monkeypatch, step=4, times=100)
    series = Series()
    with pytest.raises(TrainingDivergedError, match="at step 5") as caught:
        train(small_job(tmp_path), reporter=series)
    assert set(caught.value.losses) >= {"loss", "box", "objectness", "class"}
    assert series.starts == [0, 3, 3, 3]


class CrampedDevice:
    """Makes the device too small for more than a number of pictures, from a call on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, from_call: int = 0) -> None:
        self.sizes: list[int] = []
        original = YoloX.training_outputs

        def outputs(self_: YoloX, images_BCHW: Tensor, moment: TrainingMoment) -> tuple[Tensor, ...]:
            self.sizes.append(len(images_BCHW))
            if len(self.sizes) > from_call and len(images_BCHW) > room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return original(self_, images_BCHW, moment)

        monkeypatch.setattr(YoloX, "training_outputs", outputs)


def test_a_batch_that_does_not_fit_is_computed_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = CrampedDevice(monkeypatch, room=2)
    series = Series()
    result = train(small_job(tmp_path, epochs=1), reporter=series)
    assert result.state.micro_batches == 2
    assert device.sizes == [4, *([2, 2] * 2) * 3], "two passes over the parts of each batch"
    assert any("computed in 2 parts" in line for line in series.lines)


def test_memory_that_runs_out_late_is_noted_for_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = CrampedDevice(monkeypatch, room=2, from_call=4)
    job, series = small_job(tmp_path), Series()
    with pytest.raises(DeviceMemoryError):
        train(job, reporter=series)
    assert (tmp_path / MEMORY_NOTE).exists()
    result = train(small_job(tmp_path), reporter=series)
    assert result.reason is StopReason.COMPLETED
    assert series.starts == [0, 3]
    assert device.sizes[5:] == [2] * 24


def test_a_frozen_stage_is_resumed_in_its_middle_and_at_its_end(tmp_path: Path) -> None:
    freezing = FreezeConfig(parts=("backbone", "neck"), epochs=1, batch_size=6)
    whole = small_job(tmp_path / "whole", freeze=freezing)
    train(whole)
    for step in (1, 2):
        job = small_job(tmp_path / str(step), freeze=freezing)
        series = Series()

        def request(series: Series = series, step: int = step) -> StopRequest | None:
            return StopRequest.DRAIN if step in series.rows else None

        train(job, reporter=series, requests=request)
        assert train(job).state.step == 2 + 3 + 3
        assert final_digest(job) == final_digest(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": EmaConfig(enabled=False)},
        {"precision": Precision.AMP},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_choices_train_too(tmp_path: Path, changes: dict[str, object]) -> None:
    result = train(small_job(tmp_path, epochs=2, **changes))
    assert result.reason is StopReason.COMPLETED
    assert result.state.evaluated_step is not None


def test_a_finished_training_measures_what_it_has(tmp_path: Path) -> None:
    series = Series()
    result = train(
        small_job(tmp_path),
        reporter=series,
        requests=lambda: StopRequest.FINISH if 4 in series.rows else None,
    )
    assert result.reason is StopReason.FINISHED
    assert result.state.evaluated_step == 4
    assert series.checkpoints == [3, 4]


def test_another_configuration_or_dataset_does_not_go_on_from_these_checkpoints(tmp_path: Path) -> None:
    after_one_step(small_job(tmp_path))
    for other in (small_job(tmp_path, seed=9), small_job(tmp_path, val=3)):
        with pytest.raises(CheckpointError, match="another training"):
            train(other)


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    job = small_job(tmp_path)
    nothing = replace(job.dataset, images=job.dataset.of_split(Split.VAL))
    with pytest.raises(ConfigError, match="no picture in its split `train`"):
        train(replace(job, dataset=nothing))
    with pytest.raises(ConfigError, match="/processes"):
        train(replace(job, config=replace(job.config, processes=2)))
    with pytest.raises(DeviceError):
        train(replace(job, config=replace(job.config, device="99")))


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        (Precision.FP32, "cuda", None),
        (Precision.AUTO, "cuda", torch.float16),
        (Precision.AMP, "cuda", torch.float16),
        (Precision.AUTO, "cpu", None),
        (Precision.AMP, "cpu", torch.bfloat16),
    ],
)
def test_precision_follows_the_device(
    tmp_path: Path, precision: Precision, device: str, expected: torch.dtype | None
) -> None:
    config = replace(small_job(tmp_path).config, precision=precision)
    assert autocast_dtype(config, torch.device(device)) is expected


def test_a_training_up_to_a_step_has_the_weights_that_a_finished_one_had_there(tmp_path: Path) -> None:
    """What a reproduction relies on; the schedule is that of the whole run, and nothing ends it earlier."""
    told = Series()

    def finish_in_the_second_epoch() -> StopRequest | None:
        return StopRequest.FINISH if 4 in told.rows else None

    finished = small_job(tmp_path / "finished")
    ended = train(finished, reporter=told, requests=finish_in_the_second_epoch)
    assert (ended.reason, ended.state.step) == (StopReason.FINISHED, 4)
    stopping = {"early_stopping": EarlyStoppingConfig(patience=1, min_delta=1.0)}
    again = replace(small_job(tmp_path / "again", **stopping), until_step=4)
    assert train(again).reason is StopReason.STEP_REACHED
    assert final_digest(again) == final_digest(finished)


def test_a_training_computes_with_the_threads_of_its_configuration(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    wanted = before + 1
    try:
        job = small_job(tmp_path, threads=wanted)
        train(job, requests=lambda: StopRequest.CANCEL)
        assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)
