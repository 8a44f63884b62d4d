"""Build what a trainer works on, from a configuration and perhaps a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from detection.analysis.complexity import count_complexity
from detection.data.wording import counted
from detection.durable import write_durably
from detection.layers.sync_norm import convert_to_synced
from detection.models.batch_norm_statistics import recreate_norms
from detection.models.network import Network
from detection.models.transfer import LoadReport, load_matching
from detection.models.weight_init import initialise
from detection.models.weights import read_weights
from detection.training.checkpoints import Payload
from detection.training.config import Precision, TrainingConfig
from detection.training.distributed import Ranks
from detection.training.ema import ModelEma
from detection.training.feed import pictures_as_served
from detection.training.freezing import freeze
from detection.training.job import TrainingJob
from detection.training.optimisation import Optimisation
from detection.training.optimizers import build_optimizer
from detection.training.replicas import Replicas
from detection.training.schedules import build_schedule
from detection.training.seeds import seed_everything
from detection.training.snapshot import restore
from detection.training.state import TrainingState
from detection.training.tasks import training_of

Log = Callable[[str], None]
TRANSFER_NOTE = "transfer.json"
"""What became of the weights that the first attempt began with, for the model's provenance."""
FEW_STEPS = 200
"""Small networks on simple pictures find their first objects after some hundred."""
MOST_SHOWN = 20
"""Names in one line of the log."""


def open_session(
    job: TrainingJob, payload: Payload | None, ranks: Ranks, *, log: Log
) -> tuple[Optimisation, TrainingState]:
    """Return the optimisation and its state as `payload` left them, or as they are before the first step.

    Every rank builds the same by itself; the weights and buffers of the first one count.
    """
    config = job.config
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    log(seed_everything(config.seed, deterministic=config.deterministic))
    state = TrainingState(frozen=job.plan.epoch(0).frozen)
    if payload is not None:
        state = TrainingState.from_json(payload["state"])
    build = training_of(job).build_network
    detector = _new_network(job, ranks, log=log) if payload is None else build(job)
    if state.frozen:
        freeze(detector, config.freeze.parts)  # of a new one they are already
    if config.sync_bn:
        convert_to_synced(detector)
    detector = detector.to(ranks.device).to(memory_format=torch.channels_last)
    optimisation = _optimisation(job, detector, ranks)
    if payload is not None:
        restore(payload, optimisation)
    return optimisation, state


def _new_network(job: TrainingJob, ranks: Ranks, *, log: Log) -> Network:
    detector = training_of(job).build_network(job)
    if job.initial_weights is None:
        initialise(detector, job.config.weight_init)
        detector.begin_from(missing=detector.state_dict().keys())
        log(f"weights start at random ({job.config.weight_init.kind})")
        if (steps := job.plan.total_steps) < FEW_STEPS:
            log(
                f"{counted(steps, 'step')} from random weights teach a network hardly anything: the model "
                "may find nothing, or what is not there; give it more `epochs`, or begin from a model "
                "(`init`)"
            )
    else:
        detector.to(ranks.device)
        pictures = pictures_as_served(job, ranks.device)
        report = load_start(detector, job.initial_weights, job.config, pictures=pictures, log=log)
        if ranks.is_first:
            _note_transfer(job, report)
    if job.convention is not None and job.record.input_convention != job.convention:
        log("the weights were trained with pictures brought to the input in another way (`keep_ratio`)")
    if job.plan.epoch(0).frozen:
        freeze(detector, job.config.freeze.parts)
        epochs = counted(job.config.freeze.epochs or job.config.epochs, "epoch")
        log(f"frozen for {epochs}: {' and '.join(job.config.freeze.parts)}")
    log(count_complexity(detector, job.input_size_hw).summary())
    training_only = _training_only(detector)
    if training_only:
        log(
            f"{training_only:,} of the parameters guide the training only: they are not published, and the "
            "GFLOPs are without them"
        )
    return detector


def _training_only(detector: Network) -> int:
    """Return how many parameters are in no part that a detection needs."""
    served = {id(each) for part in detector.parts().values() for each in part.parameters()}
    return sum(each.numel() for each in detector.parameters() if id(each) not in served)


def load_start(
    detector: Network, path: Path, config: TrainingConfig, *, pictures: Iterable[Tensor] = (), log: Log
) -> LoadReport:
    """Let a detector begin with the weights of a file, as far as they fit; say what became of each.

    Args:
        pictures: batches [B, 3, H, W] of what the detector is to learn from, prepared as for serving, on its
            device. They are looked at only when the file's batch norms were folded into its convolutions.

    Raises:
        WeightsError: the file cannot be read, or nothing in it fits.
    """
    weights = read_weights(path)
    state = {**weights.state, **weights.training_state}
    report = load_matching(detector, state, exclude=config.init_exclude)
    rest = {*report.missing, *report.mismatched}
    for line in weights.report:
        log(line)
    for line in _told_of(report, detector, config.init):
        log(line)
    # Before the family gives the rest a start: what it copies should have norms that can learn, too.
    made = recreate_norms(detector, pictures)
    if made.norms:
        log(
            f"{made.norms} batch norms, folded into the convolutions, were re-created from {made.pictures} "
            "pictures of the training split; what the detector finds is unchanged"
        )
    mismatched = {name: state[name] for name in report.mismatched}
    for done, names in detector.begin_from(rest, mismatched).items():
        log(f"{done} ({len(names)} weights)")
        rest.difference_update(names)
    if rest:
        log(f"weights that start at random: {', '.join(sorted(rest))}")
    return report


def _note_transfer(job: TrainingJob, report: LoadReport) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    note = {"init": job.config.init, **report.as_json()}
    write_durably(job.folder / TRANSFER_NOTE, msgspec.json.encode(note))


def _told_of(report: LoadReport, detector: Network, init: str) -> Iterator[str]:
    own = detector.state_dict()
    yield f"{len(report.taken)} of {len(own)} weights start from {init}"
    if all(own[name].ndim < 2 for name in report.taken):
        yield "none of them is the kernel of a convolution: the detector begins nearly as from random weights"
    if report.excluded:
        yield f"excluded by `init_exclude`: {_first_of(report.excluded)}"
    if report.left:
        yield f"not taken, for the detector has nothing of that name: {_first_of(report.left)}"


def _first_of(names: Sequence[str]) -> str:
    more = len(names) - MOST_SHOWN
    return ", ".join(names[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _optimisation(job: TrainingJob, detector: Network, ranks: Ranks) -> Optimisation:
    config, device = job.config, ranks.device
    optimizer, schedule, ema = config.optimizer, config.schedule, config.ema
    if optimizer.lr is None or ema.decay is None or ema.ramp_updates is None:
        raise ValueError("the configuration is not resolved; see detection.training.recipes.resolve")
    average = ModelEma(
        detector, decay=ema.decay, ramp_updates=ema.ramp_updates, integer_buffers=ema.integer_buffers
    )
    dtype = autocast_dtype(config, device)
    return Optimisation(
        detector=detector,
        replicas=Replicas(detector, ranks),
        average=average if ema.enabled else None,
        optimizer=build_optimizer(detector, optimizer),
        schedule=build_schedule(
            schedule,
            peak_lr=optimizer.lr,
            epochs=config.epochs,
            steps_per_epoch=job.plan.steps_per_epoch,
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype is torch.float16),
        device=device,
        autocast_dtype=dtype,
        clip_norm=optimizer.clip_norm,
    )


def autocast_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Return what the forward pass computes in: `auto` is mixed precision on accelerators only.

    A CPU has no fast half precision of the accelerators' kind; there it is bfloat16, which needs no scaler.
    """
    if config.precision is Precision.FP32 or (config.precision is Precision.AUTO and device.type == "cpu"):
        return None
    return torch.bfloat16 if device.type == "cpu" else torch.float16
