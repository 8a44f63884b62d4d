"""What training, inference and export ask of any detector; a new family is covered once it is registered.

Members too large to compute with are checked on fake tensors, which have shapes but no numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from detection.architectures import ARCHITECTURES
from detection.boxes import pairwise_iou
from detection.models import MODELS, create_model, create_served_model
from detection.models.detector import Detector, TrainingMoment
from detection.postprocess import select_detections
from detection.targets import Targets
from detection.tasks import Task
from detection.training.gradients import compute_gradients
from tests.tiny_training import tiny_trainer

SMALL = [name for name in MODELS if ARCHITECTURES[name].published.parameters < 6e6]
LARGE = [name for name in MODELS if name not in SMALL]
NUM_CLASSES = 3
LATE = TrainingMoment(epoch=9, tail=True)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=SMALL)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(architecture: str) -> Detector:
    torch.manual_seed(0)
    return create_model(architecture, num_classes=NUM_CLASSES)


@pytest.fixture
def served(architecture: str) -> Detector:
    """What published weights of the same architecture belong to."""
    return create_served_model(architecture, num_classes=NUM_CLASSES)


def pictures(count: int = 2, size_hw: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.rand(count, 3, *size_hw, generator=torch.Generator().manual_seed(0)) * 255


def two_images_with_boxes() -> Targets:
    boxes = [torch.tensor([[4.0, 4, 40, 50], [50, 10, 90, 60]]), torch.tensor([[10.0, 10, 30, 30]])]
    return Targets.from_lists(boxes, [torch.tensor([0, 2]), torch.tensor([1])])


def no_boxes() -> Targets:
    return Targets.from_lists([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)


def with_statistics(model: Detector) -> Detector:
    """Let the batch norms see something, so that they do something in eval mode."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(pictures())
    return model.eval()


def backward(losses: dict[str, Tensor]) -> None:
    torch.stack(list(losses.values())).sum().backward()


def entries(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def without_gradient(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_every_architecture_has_a_network() -> None:
    detectors = {name for name in ARCHITECTURES if ARCHITECTURES[name].task is Task.DETECT}
    assert set(MODELS.names()) == detectors


@pytest.mark.parametrize("name", MODELS.names())
def test_it_has_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = create_served_model(name, num_classes=80)
    published = ARCHITECTURES[name].published.parameters
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@pytest.mark.parametrize("name", MODELS.names())
def test_predictions_have_one_row_per_prior(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=NUM_CLASSES).eval()
        boxes, scores = model.predict(torch.zeros(2, 3, 64, 96))
        raw = model(torch.zeros(2, 3, 64, 96))
    priors = sum(-(-64 // stride) * -(-96 // stride) for stride in model.strides)
    assert model.num_classes == NUM_CLASSES
    assert (boxes.shape, scores.shape) == ((2, priors, 4), (2, priors, NUM_CLASSES))
    assert raw.shape[:2] == (2, priors)


def test_boxes_are_corners_and_scores_are_probabilities(model: Detector) -> None:
    boxes, scores = with_statistics(model).predict(pictures())
    assert (boxes[..., :2] <= boxes[..., 2:]).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert boxes.dtype == scores.dtype == torch.float32


@pytest.mark.parametrize("targets", [two_images_with_boxes(), no_boxes()], ids=["boxes", "no boxes"])
def test_the_loss_is_finite_and_reaches_every_parameter(model: Detector, targets: Targets) -> None:
    losses = model.loss(pictures(), targets, LATE)
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    for name, loss in losses.items():
        assert loss.requires_grad, name
    assert all(not fact.requires_grad for fact in model.loss_statistics.values())
    backward(losses)
    assert without_gradient(model) == []
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.grad is not None)


@pytest.mark.parametrize("name", LARGE)
def test_the_loss_of_a_large_member_reaches_every_parameter(name: str) -> None:
    targets = two_images_with_boxes()
    with FakeTensorMode() as fake:
        model = create_model(name, num_classes=NUM_CLASSES)
        rows = (targets.boxes_BG4, targets.labels_BG, targets.valid_BG)
        backward(model.loss(torch.zeros(2, 3, 64, 96), Targets(*map(fake.from_tensor, rows)), LATE))
        assert without_gradient(model) == []


def test_with_boxes_every_parameter_learns(model: Detector) -> None:
    backward(model.loss(pictures(), two_images_with_boxes(), LATE))
    idle = [name for name, each in model.named_parameters() if each.grad is not None and not each.grad.any()]
    # A level without a foreground prior teaches its box convolution nothing.
    assert [name for name in idle if not any(part in name for part in ("reg", "cls", "scale"))] == []


def test_it_overfits_one_image(model: Detector) -> None:
    picture = pictures(1, (96, 96))
    picture[:, :, 20:70, 30:80] = torch.tensor([20.0, 200.0, 90.0]).reshape(1, 3, 1, 1)
    truth = torch.tensor([[30.0, 20.0, 80.0, 70.0]])
    targets = Targets.from_lists([truth], [torch.tensor([1])])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    totals: list[float] = []
    for step in range(1, 86):
        optimizer.zero_grad()
        losses = model.loss(picture, targets, TrainingMoment(epoch=0, tail=False))
        backward(losses)
        optimizer.step()
        totals.append(float(sum(loss.detach() for loss in losses.values())))
        if step % 10 == 5 and min(totals[-5:]) < totals[0] / 3 and is_found(model, picture, truth, label=1):
            return
    pytest.fail(f"it did not learn its picture in {len(totals)} steps: {totals[::20]}")


def is_found(model: Detector, picture: Tensor, truth: Tensor, *, label: int) -> bool:
    with torch.no_grad():  # in train mode, because so few steps do not settle the statistics
        boxes, scores = model.predict(picture)
    found = select_detections(
        boxes[0], scores[0], score_threshold=0.3, nms_iou=0.5, max_detections=1, one_label_per_prior=True
    )
    return found.labels_N.tolist() == [label] and float(pairwise_iou(found.boxes_N4, truth)) > 0.75


def test_fusing_does_not_change_the_answers(model: Detector) -> None:
    with_statistics(model)
    fused = copy.deepcopy(model)
    fused.fuse()
    assert not [layer for layer in fused.modules() if isinstance(layer, nn.BatchNorm2d)]
    for found, expected in zip(fused.predict(pictures()), model.predict(pictures()), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_state_makes_the_same_model_again(model: Detector) -> None:
    with_statistics(model)
    again = copy.deepcopy(model)
    for value in again.state_dict().values():
        value.zero_()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(pictures()), model(pictures()))


def test_memory_format_does_not_matter(model: Detector) -> None:
    with_statistics(model)
    channels_last: Detector = copy.deepcopy(model).to(memory_format=torch.channels_last)
    found = channels_last(pictures().contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, model(pictures()), rtol=1e-3, atol=1e-3)


def test_a_batch_is_its_images(model: Detector) -> None:
    with_statistics(model)
    batch = model(pictures(3))
    single = torch.cat([model(each.unsqueeze(0)) for each in pictures(3)])
    torch.testing.assert_close(batch, single, rtol=1e-3, atol=1e-3)


def test_a_batch_in_parts_has_the_gradient_of_the_whole(model: Detector) -> None:
    """In double precision, where what is left cannot be rounding."""
    with_statistics(model).double()
    images, targets = pictures().double(), two_images_with_boxes()
    backward(model.loss(images, targets, LATE))
    whole = [each.grad for each in model.parameters() if each.grad is not None]
    model.zero_grad(set_to_none=True)
    compute_gradients(tiny_trainer(detector=model).optimisation, images, targets, LATE, parts=2)
    for found, expected in zip(model.parameters(), whole, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found.grad, expected, rtol=1e-4, atol=1e-6 * scale)


def test_parts_are_the_whole_and_run_one_after_the_other(model: Detector) -> None:
    with_statistics(model)
    parts = model.parts()
    assert set(parts) == {"backbone", "neck", "head"}
    of_parts = [parameter for part in parts.values() for parameter in part.parameters()]
    assert len(of_parts) == len({id(each) for each in of_parts})
    model.drop_training_parts()
    assert {id(each) for each in of_parts} == {id(each) for each in model.parameters()}
    raw = parts["head"](parts["neck"](parts["backbone"](pictures())))
    assert torch.equal(raw, model(pictures()))


def test_a_frozen_part_keeps_its_numbers(model: Detector) -> None:
    model.train()
    frozen = nn.ModuleList(model.parts()[name].requires_grad_(False).eval() for name in ("backbone", "neck"))
    fixed, before = entries(frozen), entries(model)
    backward(model.loss(pictures(), two_images_with_boxes(), LATE))
    unlearnt = {id(each) for each in frozen.parameters()}
    assert all((id(each) in unlearnt) == (each.grad is None) for each in model.parameters())
    assert all(torch.equal(value, fixed[name]) for name, value in frozen.state_dict().items())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("head.") for name in changed)


def test_what_exists_for_training_only_can_be_dropped(model: Detector, served: Detector) -> None:
    with_statistics(model)
    expected = model.predict(pictures())
    model.drop_training_parts()
    assert entries(model).keys() == entries(served).keys()
    assert all(map(torch.equal, model.predict(pictures()), expected))
    losses = model.loss(pictures(), two_images_with_boxes(), LATE)
    backward(losses)
    assert all(loss.isfinite() for loss in losses.values())
    assert without_gradient(model) == []


def test_a_fused_network_holds_nothing_for_training(model: Detector, served: Detector) -> None:
    model.eval().fuse()
    served.fuse()
    assert entries(model).keys() == entries(served).keys()


def test_a_training_may_begin_from_what_is_served(model: Detector, served: Detector) -> None:
    """What the served weights lack makes up for itself, is named once, and changes nothing that they say."""
    missing = entries(model).keys() - entries(served).keys()
    model.eval().load_state_dict(served.state_dict(), strict=False)
    done = model.begin_from(missing)
    named = [name for names in done.values() for name in names]
    assert sorted(named) == sorted(missing)
    assert all(map(torch.equal, model.predict(pictures()), served.predict(pictures())))
    assert model.begin_from(()) == {}
