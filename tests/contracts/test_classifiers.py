"""What every classifier must do, whatever its layers: learn, freeze, fuse, be exported and imported again."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detection.analysis.complexity import count_flops
from detection.architectures import ARCHITECTURES, names_for
from detection.deploy.package import write_model
from detection.devices import CPU
from detection.inference.backends import BACKENDS
from detection.inference.second_stage import CropClassifier
from detection.model_files import ONNX_FILE, RECORD_FILE, WEIGHTS_FILE, read_record
from detection.models.classifier import CLASSIFIERS, Classifier, build_classifier, imagenet_classes
from detection.models.network import TrainingMoment
from detection.models.networks import create_served_network
from detection.models.transfer import load_matching
from detection.models.weights import read_weights
from detection.targets import Targets
from detection.tasks import Task
from detection.training.gradients import compute_gradients
from tests.pictures import noise
from tests.tiny_training import tiny_trainer

ONE_OF_EACH_KIND = ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"]
EARLY = TrainingMoment(epoch=0, tail=False)
torch.set_num_threads(1)


def pictures(number: int = 3, side: int = 64) -> Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(5))


def targets(*labels: int) -> Targets:
    whole = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    return Targets.from_lists([whole] * len(labels), [torch.tensor([label]) for label in labels])


@pytest.fixture(params=ONE_OF_EACH_KIND)
def model(request: pytest.FixtureRequest) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(request.param, num_classes=3)


def with_statistics(model: Classifier) -> Classifier:
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(pictures())
    return model.eval()


def test_every_architecture_has_a_network() -> None:
    assert list(CLASSIFIERS) == names_for(Task.CLASSIFY)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_names_numbers_and_operations_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        own = build_classifier(name, num_classes=1000)
        original = torchvision.models.get_model(name, weights=None)
    published = ARCHITECTURES[name].published
    assert {k: v.shape for k, v in own.state_dict().items()} == {
        k: v.shape for k, v in original.state_dict().items()
    }
    assert sum(each.numel() for each in own.parameters()) == published.parameters
    assert count_flops(own, (224, 224)) / 1e9 == pytest.approx(published.gflops, abs=0.005)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_published_accuracy_is_that_of_the_first_published_weights(name: str) -> None:
    meta = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
    accuracy = ARCHITECTURES[name].published.accuracy
    assert accuracy == pytest.approx(meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, abs=1e-6)
    assert tuple(meta["categories"]) == imagenet_classes()


def test_it_computes_what_torchvision_computes(model: Classifier, request: pytest.FixtureRequest) -> None:
    with_statistics(model)
    name = request.node.callspec.params["model"]
    original = torchvision.models.get_model(name, weights=None, num_classes=3).eval()
    original.load_state_dict(model.state_dict())
    assert torch.equal(model(pictures()), original(pictures()))
    assert torch.equal(model.predict(pictures())[0], original(pictures()).softmax(dim=1))


def test_the_last_layer_begins_at_random_and_learns(model: Classifier) -> None:
    head = model.parts()["head"]
    assert isinstance(head, nn.Linear)
    assert head.weight.std() > 0
    losses = model.loss(pictures(), targets(0, 1, 2), EARLY)
    assert losses.keys() == {"cross_entropy"}
    losses["cross_entropy"].backward()
    assert [name for name, each in model.named_parameters() if each.grad is None] == []
    assert head.weight.grad is not None
    assert head.weight.grad.any()
    right = model.loss_statistics["train_accuracy"].item() * 3
    assert right == pytest.approx(round(right), abs=1e-4)


def test_it_learns_three_pictures_by_heart(model: Classifier) -> None:
    images, wanted = pictures(), targets(2, 0, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, 26):
        optimizer.zero_grad()
        model.loss(images, wanted, EARLY)["cross_entropy"].backward()
        optimizer.step()
        if step % 5 == 0 and model(images).argmax(dim=1).tolist() == [2, 0, 1]:
            return
    pytest.fail("it did not learn its pictures in 25 steps")


def test_fusing_does_not_change_the_answers(model: Classifier) -> None:
    with_statistics(model)
    fused = copy.deepcopy(model)
    fused.fuse()
    assert not [each for each in fused.modules() if isinstance(each, nn.BatchNorm2d)]
    torch.testing.assert_close(fused.predict(pictures())[0], model.predict(pictures())[0])


def test_parts_are_the_whole_and_run_one_after_the_other(model: Classifier) -> None:
    with_statistics(model)
    parts = model.parts()
    assert list(parts) == ["backbone", "head"]
    of_parts = [id(each) for part in parts.values() for each in part.parameters()]
    assert sorted(of_parts) == sorted(map(id, model.parameters()))
    assert torch.equal(parts["head"](parts["backbone"](pictures())), model(pictures()))


def test_a_frozen_backbone_keeps_its_numbers(model: Classifier) -> None:
    model.train()
    frozen = model.parts()["backbone"].requires_grad_(False).eval()
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    model.loss(pictures(), targets(0, 1, 2), EARLY)["cross_entropy"].backward()
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    learnt = [name for name, each in model.named_parameters() if each.grad is not None]
    assert len(learnt) == 2


def test_a_batch_in_parts_has_the_gradient_of_the_whole(model: Classifier) -> None:
    with_statistics(model).double()
    images, wanted = pictures(4).double(), targets(0, 1, 2, 0)
    model.loss(images, wanted, EARLY)["cross_entropy"].backward()
    whole = [each.grad for each in model.parameters() if each.grad is not None]
    model.zero_grad(set_to_none=True)
    compute_gradients(tiny_trainer(detector=model).optimisation, images, wanted, EARLY, parts=2)
    for found, expected in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(found.grad, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_both_passes_of_a_batch_in_parts_drop_the_same() -> None:
    """Then the gradient is that of the loss that was told: its descent makes this very loss smaller."""
    torch.manual_seed(0)
    model = build_classifier("efficientnet_b0", num_classes=3).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    images, wanted = pictures(4), targets(0, 1, 2, 0)
    optimisation = tiny_trainer(detector=model).optimisation
    state = torch.get_rng_state()
    compute_gradients(optimisation, images, wanted, EARLY, parts=2)
    in_parts = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    model.zero_grad(set_to_none=True)
    torch.set_rng_state(state)
    halves = [model.training_outputs(images[part], EARLY)[0] for part in (slice(0, 2), slice(2, 4))]
    model.loss_of_outputs((torch.cat(halves),), wanted, EARLY, size_hw=(64, 64))["cross_entropy"].backward()
    expected = [each.grad for each in model.parameters() if each.grad is not None]
    for found, own in zip(in_parts, expected, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-3, atol=1e-5 * float(own.abs().max()))


def test_every_backend_and_export_agrees_and_is_imported_again(model: Classifier, tmp_path: Path) -> None:
    with_statistics(model)
    name = next(each for each in ONE_OF_EACH_KIND if _is(model, each))
    record = ARCHITECTURES[name].record(classes=("a", "b", "c"), input_size_hw=(64, 64))
    files = write_model(model, record, tmp_path)
    assert {file.name for file in files} == {WEIGHTS_FILE, ONNX_FILE, RECORD_FILE}
    assert read_record(tmp_path) == record
    crops = [noise(30, 50, seed) for seed in range(4)]
    answers = [
        CropClassifier(kind.load(tmp_path, record, device=CPU, threads=1), record).probabilities(crops)
        for kind in (BACKENDS[each] for each in BACKENDS)
        if kind.precisions(CPU)
    ]
    for other in answers[1:]:
        torch.testing.assert_close(other, answers[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(answers[0].sum(dim=1), torch.ones(4))
    weights = read_weights(tmp_path / WEIGHTS_FILE)
    assert (weights.architecture, weights.num_classes, weights.folded) == (name, 3, False)
    again = create_served_network(name, num_classes=3)
    again.load_state_dict(weights.state)
    assert torch.equal(again(pictures()), model(pictures()))


def _is(model: Classifier, name: str) -> bool:
    with torch.device("meta"):
        other = build_classifier(name, num_classes=3)
    return model.state_dict().keys() == other.state_dict().keys()


@pytest.mark.parametrize("name", ["resnet34", *ONE_OF_EACH_KIND])
def test_a_file_of_torchvision_is_recognised(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.get_model(name, weights=None).state_dict(), tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth")
    assert (weights.architecture, weights.num_classes) == (name, 1000)
    model = build_classifier(name, num_classes=5)
    report = load_matching(model, weights.state)
    assert len(report.mismatched) == 2
    assert not report.missing
