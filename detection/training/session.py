"""Build what a trainer works on, from a configuration and perhaps a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from detection.analysis.complexity import count_complexity
from detection.layers.sync_norm import convert_to_synced
from detection.models import create_model
from detection.models.batch_norm_statistics import recreate_norms
from detection.models.detector import Detector
from detection.models.weight_init import initialise
from detection.models.weights import load_matching, read_weights
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

Log = Callable[[str], None]


def open_session(
    job: TrainingJob, payload: Payload | None, ranks: Ranks, *, log: Log
) -> tuple[Optimisation, TrainingState]:
    """Return the optimisation and its state as `payload` left them, or as they are before the first step.

    Every rank builds the same by itself; the weights and buffers of the first one count.
    """
    config = job.config
    seed_everything(config.seed, deterministic=config.deterministic)
    state = TrainingState(frozen=job.plan.epoch(0).frozen)
    if payload is not None:
        state = TrainingState.from_json(payload["state"])
    detector = _new_detector(job, ranks.device, log=log) if payload is None else build_detector(job)
    if state.frozen:
        freeze(detector, config.freeze.parts)
    if config.sync_bn:
        convert_to_synced(detector)
    detector = detector.to(ranks.device).to(memory_format=torch.channels_last)
    optimisation = _optimisation(job, detector, ranks)
    if payload is not None:
        restore(payload, optimisation)
    return optimisation, state


def build_detector(job: TrainingJob) -> Detector:
    """Return the job's detector with its weights as the framework draws them."""
    config = job.config
    return create_model(
        config.architecture, num_classes=len(job.dataset.classes), assigner=config.assigner, loss=config.loss
    )


def _new_detector(job: TrainingJob, device: torch.device, *, log: Log) -> Detector:
    detector = build_detector(job)
    if job.initial_weights is None:
        initialise(detector, job.config.weight_init)
        detector.begin_from(missing=detector.state_dict().keys())
        log(f"weights start at random ({job.config.weight_init.kind})")
    else:
        detector.to(device)
        pictures = pictures_as_served(job, device)
        load_start(detector, job.initial_weights, job.config, pictures=pictures, log=log)
    if job.convention is not None and job.record.input_convention != job.convention:
        log("the weights were trained with pictures brought to the input in another way (`keep_ratio`)")
    log(count_complexity(detector, job.input_size_hw).summary())
    training_only = _training_only(detector)
    if training_only:
        log(
            f"{training_only:,} of the parameters guide the training only: they are not published, and the "
            "GFLOPs are without them"
        )
    return detector


def _training_only(detector: Detector) -> int:
    """Return how many parameters are in no part that a detection needs."""
    served = {id(each) for part in detector.parts().values() for each in part.parameters()}
    return sum(each.numel() for each in detector.parameters() if id(each) not in served)


def load_start(
    detector: Detector, path: Path, config: TrainingConfig, *, pictures: Iterable[Tensor] = (), log: Log
) -> None:
    """Let a detector begin with the weights of a file, as far as they fit; say what became of each.

    Args:
        pictures: batches [B, 3, H, W] of what the detector is to learn from, prepared as for serving, on its
            device. They are looked at only when the file's batch norms were folded into its convolutions.
    """
    weights = read_weights(path)
    state = {**weights.state, **weights.training_state}
    report = load_matching(detector, state, exclude=config.init_exclude)
    rest = {*report.missing, *report.mismatched}
    for line in weights.report:
        log(line)
    log(f"{len(report.taken)} of {len(detector.state_dict())} weights start from {config.init}")
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


def _optimisation(job: TrainingJob, detector: Detector, ranks: Ranks) -> Optimisation:
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
