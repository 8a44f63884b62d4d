"""Train a network: go on from the last checkpoint, obey orders between steps, publish what came out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from sqlalchemy.orm import Session

from app.jobs.protocol import Failure
from detection.data.records import Split
from detection.deploy.publish import Publication, publish
from detection.durable import sha256_of
from detection.families.reading import read_config
from detection.training.job import TrainingJob
from detection.training.recipes import settle
from detection.training.run import TrainingResult, train
from detection.training.state import StopReason, StopRequest
from worker.attempt import Attempt
from worker.callbacks import TrainingReporter
from worker.control import StoppedError
from worker.jobs.device import names_of, take_devices
from worker.jobs.published import NewModel, evaluation_row, publish_model
from worker.jobs.reproduction import Original, announce_reproduction, compare_with_original, open_original
from worker.jobs.score import SCORE_OF_TASK
from worker.learnt import learnt_from
from worker.pictures import StoredDataset, open_dataset
from worker.ranks.launch import train_on_ranks
from worker.run_folder import take_over
from worker.stored_model import open_model

REQUEST_OF_REASON = {StopReason.CANCELLED: StopRequest.CANCEL, StopReason.DRAINED: StopRequest.DRAIN}

EARLY_ENDS = {
    StopReason.FINISHED: "finish",
    StopReason.EARLY_STOPPED: "early_stopping",
    StopReason.STEP_REACHED: "reproduction",
}
REASON_OF_EARLY_END = {
    "finish": "finished by its user",
    "early_stopping": "stopped for want of a better",
    "reproduction": "stopped where the weights of the reproduced model were taken,",
}


def run(attempt: Attempt) -> None:
    attempt.control.obey_yourself()
    dataset = open_dataset(attempt)
    original = open_original(attempt)
    training = _training(attempt, dataset, original)
    if original is not None:
        announce_reproduction(attempt, original, training)
    reporter = TrainingReporter(attempt.report, attempt.lease, training.folder)
    if training.num_ranks == 1:
        result = train(training, reporter=reporter, requests=attempt.control.request)
    else:
        result = train_on_ranks(attempt, training, dataset, reporter)
    attempt.report.flush()
    if not result.reason.publishes:
        _stop(attempt, training, result)
        return
    _publish(attempt, training, dataset, reporter, result, original)


def _training(attempt: Attempt, dataset: StoredDataset, original: Original | None) -> TrainingJob:
    config = read_config(attempt.job.config)
    devices = names_of(take_devices(attempt))
    config = settle(config, device=devices, threads=torch.get_num_threads())
    # Every later attempt must compute in the same way; so it is stored before there is a checkpoint.
    settled = {"precision": config.precision.value, "threads": config.threads}
    attempt.report.config({**attempt.job.config, **settled})
    attempt.report.flush()
    start = None if attempt.job.model_id is None else open_model(attempt)
    learnt, notes = learnt_from(dataset.record, config)
    return TrainingJob(
        config=config,
        dataset=learnt,
        notes=notes,
        read=dataset.pictures,
        folder=take_over(attempt.settings.checkpoints / attempt.job.id, attempt.job.fence),
        initial_weights=None if start is None else start.weights,
        convention=None if start is None else start.record.input_convention,
        until_step=None if original is None else original.step,
    )


def _stop(attempt: Attempt, training: TrainingJob, result: TrainingResult) -> None:
    """End without a model, because somebody wants it or time is up; either way it can be resumed."""
    if result.reason in REQUEST_OF_REASON:
        raise StoppedError(REQUEST_OF_REASON[result.reason])
    limit_s = training.config.time_limit_s
    message = f"the time limit of {limit_s} s is reached; resume it to go on from step {result.state.step}"
    attempt.fail(Failure("time_limit", message, retryable=True))


def _publish(
    attempt: Attempt,
    training: TrainingJob,
    dataset: StoredDataset,
    reporter: TrainingReporter,
    result: TrainingResult,
    original: Original | None,
) -> None:
    folder, early = attempt.scratch / "model", _ended_early(training, result)
    how_it_ended = f"{_reason_of(early, training)} {_extent(training, result)}" if early else ""
    if how_it_ended:
        attempt.report.line(how_it_ended)
    made = publish(
        training, folder, reporter=reporter, interrupted=partial(_interrupted, attempt), saw=result.saw
    )
    if made is None:
        raise StoppedError(attempt.control.request() or StopRequest.DRAIN)
    provenance = _provenance(attempt, training, dataset, made, result)
    outcome: dict[str, Any] = {}
    if original is not None:
        compared = compare_with_original(
            attempt, original, provenance=provenance, metrics=made.metrics, folder=folder
        )
        outcome = {"reproduction": compared}
    attempt.report.flush()
    model = NewModel(
        name=attempt.job.name,
        origin="trained",
        record=made.record,
        complexity=made.complexity,
        metrics=made.metrics,
        provenance={**provenance, **outcome},
        folder=folder,
        files=made.files,
    )
    publish_model(
        attempt,
        model,
        add_rows=partial(_add_evaluation, attempt, dataset, made),
        result={"ended_early": early, **outcome},
        reason=how_it_ended,
    )
    shutil.rmtree(training.folder.parent, ignore_errors=True)  # nothing goes on from here


def _provenance(
    attempt: Attempt,
    training: TrainingJob,
    dataset: StoredDataset,
    made: Publication,
    result: TrainingResult,
) -> Mapping[str, Any]:
    """Return what the library knows of how the model was made, and what only this job knows."""
    return {
        **made.provenance,
        "dataset_id": attempt.job.dataset_id,
        "dataset_sha256": dataset.sha256,
        "dataset_content_sha256": made.provenance["dataset_sha256"],
        "init_model_id": attempt.job.model_id,
        "init_sha256": None if training.initial_weights is None else sha256_of(training.initial_weights),
        "device": str(training.devices[0]),
        "ranks": [str(training.device_of(rank)) for rank in range(training.num_ranks)],
        "epochs_done": result.state.epoch,
        "epochs_planned": training.config.epochs,
        "steps_done": result.state.step,
        "micro_batches": result.state.micro_batches,
        "recoveries": result.state.recoveries,
        "ended_early": _ended_early(training, result),
    }


def _ended_early(training: TrainingJob, result: TrainingResult) -> str | None:
    """Return what ended a training before its last epoch; None when nothing did."""
    if result.state.epoch >= training.config.epochs:
        return None
    return EARLY_ENDS.get(result.reason)


def _reason_of(early: str, training: TrainingJob) -> str:
    reason = REASON_OF_EARLY_END[early]
    return f"{reason} {SCORE_OF_TASK[training.config.task].word}" if early == "early_stopping" else reason


def _extent(training: TrainingJob, result: TrainingResult) -> str:
    epochs, steps = training.config.epochs, training.plan.total_steps
    return f"after {result.state.epoch} of {epochs} epochs (step {result.state.step} of {steps})"


def _add_evaluation(
    attempt: Attempt, dataset: StoredDataset, made: Publication, session: Session, model_id: str
) -> None:
    if made.metrics is not None:
        row = evaluation_row(
            attempt,
            model_id,
            dataset_sha256=dataset.sha256,
            split=Split.VAL.value,
            metrics=made.metrics,
            details=made.details,
            tta=made.tta,
        )
        session.add(row)


def _interrupted(attempt: Attempt) -> bool:
    return attempt.control.request() in (StopRequest.CANCEL, StopRequest.DRAIN)
