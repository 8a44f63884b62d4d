"""Batch norms made anew for folded weights: nothing changes in eval mode, and train mode resembles it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from detection.architectures import ARCHITECTURES
from detection.devices import CPU
from detection.families.reading import read_config
from detection.inference.backends.eager import EagerBackend
from detection.inference.predictor import Predictor
from detection.input_convention import NANODET_STRETCH, InputConvention
from detection.models import MODELS, create_model, create_served_model
from detection.models.batch_norm_statistics import ChannelMoments, neutral_norm, recreate_norms
from detection.models.detector import Detector
from detection.models.weights import read_weights
from detection.training.feed import pictures_as_served
from detection.training.run import train
from detection.training.session import load_start
from detection.training.state import StopRequest
from tests.small_job import Series, read_picture, small_job

SMALLEST_OF_FAMILY = list({ARCHITECTURES[name].family: name for name in reversed(MODELS.names())}.values())


def pictures(count: int = 6) -> Tensor:
    """Noise [count, 3, 128, 96]."""
    return torch.randn(count, 3, 128, 96, generator=torch.Generator().manual_seed(0))


def norms_of(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def seen_something(name: str, images_BCHW: Tensor | None = None) -> Detector:
    """Return a served detector whose own batch norms have seen pictures and say something of their own."""
    torch.manual_seed(0)
    model = create_served_model(name, num_classes=2).train()
    for norm in norms_of(model):
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.8, 1.6)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
    with torch.no_grad():
        model(pictures() if images_BCHW is None else images_BCHW)
    return model.eval()


def write_folded(model: Detector, path: Path) -> int:
    """Write a detector's weights as a file without batch norms; return how many it had."""
    norms = len(norms_of(model))
    model.fuse()
    save_file(model.state_dict(), path)
    return norms


@pytest.fixture(params=SMALLEST_OF_FAMILY)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folded(architecture: str, tmp_path: Path) -> Path:
    """A file of weights without batch norms."""
    write_folded(seen_something(architecture), tmp_path / "folded")
    return tmp_path / "folded"


@pytest.fixture
def imported(architecture: str, folded: Path) -> Detector:
    """What a model becomes that was imported from such a file."""
    model = create_served_model(architecture, num_classes=2)
    model.load_state_dict(read_weights(folded).state)
    return model


def answers(model: Detector, *, training: bool) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).train(training)(pictures())


def apart(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference in deviations of what was expected."""
    return float((found - expected).abs().max() / expected.std())


def test_detection_is_unchanged_and_training_begins_near_it(imported: Detector) -> None:
    """Untrained networks enlarge what float32 rounds away; those of the originals keep to 1e-5."""
    expected = answers(imported, training=False)
    assert apart(answers(imported, training=True), expected) > 0.3
    made = recreate_norms(imported, pictures().split(4))
    assert (made.norms, made.pictures) == (len(norms_of(imported)), 6)
    assert not imported.training
    assert apart(answers(imported, training=False), expected) < 1e-3
    assert apart(answers(imported, training=True), expected) < 3e-3


def test_a_second_time_changes_nothing_and_asks_for_no_picture(imported: Detector) -> None:
    def none() -> Iterator[Tensor]:
        raise AssertionError("a picture was asked for")
        yield

    recreate_norms(imported, [pictures()])
    before = buffers(imported)
    assert recreate_norms(imported, none()).norms == 0
    assert recreate_norms(create_model("yolox-nano", num_classes=2), none()).norms == 0
    assert all(torch.equal(value, before[name]) for name, value in buffers(imported).items())


def test_without_pictures_nothing_is_made(imported: Detector) -> None:
    before = buffers(imported)
    made = recreate_norms(imported, [])
    assert (made.norms, made.pictures) == (0, 0)
    assert all(torch.equal(value, before[name]) for name, value in buffers(imported).items())


def test_only_norms_that_did_not_learn_yet_are_made_anew(imported: Detector) -> None:
    learnt, *rest = norms_of(imported)
    torch.nn.init.constant_(learnt.get_buffer("running_mean"), 0.5)
    made = recreate_norms(imported, [pictures()])
    assert made.norms == len(rest)
    assert (learnt.get_buffer("running_mean") == 0.5).all()
    assert all(norm.get_buffer("running_mean").any() for norm in rest)


def test_a_model_that_was_imported_folded_is_known_by_its_weights(imported: Detector, tmp_path: Path) -> None:
    """A training starts from the service's own file: batch norms and all, but neutral."""
    save_file(imported.state_dict(), tmp_path / "weights.safetensors")
    weights = read_weights(tmp_path / "weights.safetensors")
    assert not weights.folded
    imported.load_state_dict(weights.state)
    assert recreate_norms(imported, [pictures()]).norms == len(norms_of(imported))


def test_half_precision_is_neutral_too() -> None:
    norm = nn.BatchNorm2d(3)
    norm.load_state_dict(neutral_norm(torch.tensor([1.0, -2.0, 3.0]).half(), eps=norm.eps))
    features = torch.randn(2, 3, 4, 4)
    expected = features + torch.tensor([1.0, -2.0, 3.0])[:, None, None]
    assert torch.equal(norm.eval()(features), expected)


def test_dead_channels_stay_dead_and_finite(imported: Detector) -> None:
    """A convolution with zero weights answers with its folded bias, whatever it sees."""
    parent = next(layer for layer in imported.modules() if hasattr(layer, "normed") and layer.normed())
    conv_name, norm_name = next(iter(parent.normed().items()))
    conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        conv.get_parameter("weight")[:2] = 0
    expected = answers(imported, training=False)
    recreate_norms(imported, [pictures()])
    assert torch.equal(norm.get_buffer("running_var")[:2], torch.zeros(2))
    torch.testing.assert_close(norm.weight[:2].detach(), torch.full((2,), norm.eps).sqrt())
    for training in (False, True):
        assert apart(answers(imported, training=training), expected) < 3e-3
    imported.train()(pictures()).square().mean().backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in imported.parameters())


def test_moments_are_exact_where_the_mean_is_large() -> None:
    generator = np.random.default_rng(0)
    means = np.array([1e4, -3.0, 0.0])[:, None, None]
    features = generator.normal(means, 1e-2, (7, 3, 5, 4)).astype(np.float32)
    moments = ChannelMoments()
    for batch in np.split(features, [1, 3]):
        moments.add(torch.from_numpy(batch))
    exact = features.astype(np.float64)
    assert moments.count == 7 * 5 * 4
    np.testing.assert_allclose(moments.mean_C, exact.mean((0, 2, 3)), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(moments.variance_C, exact.var((0, 2, 3)), rtol=1e-9)


def test_the_auxiliary_neck_begins_with_the_new_norms(tmp_path: Path) -> None:
    norms = write_folded(seen_something("nanodet-plus-m"), tmp_path / "folded")
    detector, lines = create_model("nanodet-plus-m", num_classes=3), list[str]()
    config = read_config({"architecture": "nanodet-plus-m", "init": "model-7"})
    load_start(detector, tmp_path / "folded", config, pictures=[pictures()], log=lines.append)
    state = detector.state_dict()
    necks = {name: f"aux_{name}" for name in state if name.startswith("fpn.")}
    assert necks
    assert all(torch.equal(state[name], state[copied]) for name, copied in necks.items())
    assert all(state[name].any() for name in necks.values() if name.endswith("running_mean"))
    assert any(
        line.startswith(f"{norms} batch norms, folded") and "from 6 pictures" in line for line in lines
    )


@pytest.mark.parametrize("convention", [None, NANODET_STRETCH])
def test_pictures_are_prepared_as_they_are_served(tmp_path: Path, convention: InputConvention | None) -> None:
    job = replace(small_job(tmp_path), convention=convention)
    batches = list(pictures_as_served(job, CPU, most=6))
    assert [tuple(each.shape) for each in batches] == [(4, 3, 64, 64), (2, 3, 64, 64)]
    predictor = Predictor(EagerBackend(create_served_model("yolox-nano", num_classes=2), CPU), job.record)
    served = {predictor.prepare(read_picture(image)).fitted.tensor.tobytes() for image in job.train_images}
    seen = [picture.numpy().tobytes() for batch in batches for picture in batch]
    assert len(set(seen)) == 6
    assert set(seen) <= served
    assert len(torch.cat(list(pictures_as_served(job, CPU)))) == len(job.train_images)


def test_a_training_from_folded_weights_says_so_once(tmp_path: Path) -> None:
    job = small_job(tmp_path / "run", init="model-7", epochs=1)
    source = seen_something("yolox-nano", torch.cat(list(pictures_as_served(job, CPU))))
    norms = write_folded(source, tmp_path / "folded")
    job = replace(job, initial_weights=tmp_path / "folded")
    first, second = Series(), Series()
    train(job, reporter=first, requests=lambda: StopRequest.DRAIN if first.rows else None)
    done = f"{norms} batch norms, folded into the convolutions, were re-created from 12 pictures"
    assert sum(line.startswith(done) for line in first.lines) == 1
    train(job, reporter=second)
    assert not any(line.startswith(done) for line in second.lines)
    assert max(second.rows) == 3
