"""Plan how a model is served: measure every way on real pictures, compare it, pin the best."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from app.database.tables import Model, utc_now
from app.jobs.protocol import note_change
from detection.data.records import Split
from detection.heap import keep_freed_memory
from detection.inference.plan import PlanRow, PlanWish, Verdict, judge, why_not
from detection.model_files import ONNX_FILE
from detection.others import Others, in_words
from detection.processor import processor_name
from worker.attempt import Attempt
from worker.jobs.device import begin_on_device
from worker.jobs.measuring import matched_ids, with_ids
from worker.jobs.planner import Planner
from worker.pictures import open_dataset
from worker.stored_model import as_folder, open_graph, open_model

MOST_MEASURED = 500
"""Pictures of the split that tell the AP of each way; more would take hours for a difference that is seen."""


def run(attempt: Attempt) -> None:
    keep_freed_memory()  # as the engine does
    config, device = attempt.job.config, begin_on_device(attempt)
    model, dataset = open_model(attempt), open_dataset(attempt)
    folder = as_folder(model, attempt.scratch / "served")
    (folder / ONNX_FILE).symlink_to(open_graph(attempt, model))
    ids = matched_ids(dataset.record.classes, model.record.classes)
    pictures = dataset.record.of_split(Split(config["split"]))[:MOST_MEASURED]
    images = [with_ids(image, ids) for image in pictures]
    planner, others = Planner(attempt, folder, device, images, dataset.pictures), Others()
    rows, others_share = planner.rows(), others.share()
    wish = PlanWish(**{name: config[name] for name in ("p95_ms", "rps", "max_ap_drop")})
    verdict = judge(rows, wish)
    beside = in_words(others_share)
    for line in filter(None, (beside, _outcome(verdict))):
        attempt.report.line(line)
    result = {
        "model_id": model.id,
        **_where_measured(attempt),
        "pictures": len(images),
        "others_share": None if others_share is None else round(others_share, 3),
        "beside": beside,
        "wish": asdict(wish),
        **_decided(rows, wish, verdict, pin=config["pin"]),
    }
    attempt.succeed(result, partial(_keep, result))


def _where_measured(attempt: Attempt) -> dict[str, Any]:
    """Return by which job, on what machine and on which pictures."""
    return {
        "job_id": attempt.job.id,
        "made_at": utc_now().isoformat(),
        "device": attempt.device,
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "dataset_id": attempt.job.dataset_id,
        "split": attempt.job.config["split"],
    }


def _decided(rows: Sequence[PlanRow], wish: PlanWish, verdict: Verdict, *, pin: bool) -> dict[str, Any]:
    winner, closest = verdict.winner, verdict.closest

    def shown(row: PlanRow) -> dict[str, Any]:
        return {**_as_json(row), "why_not": why_not(row, wish, winner)}

    return {
        "rows": [shown(row) for row in rows],
        "winner": None if winner is None else shown(winner),
        "pinned": None if winner is None or not pin else asdict(winner.shape),
        "closest": None if closest is None else shown(closest),
        "unmet": list(verdict.unmet),
    }


def _outcome(verdict: Verdict) -> str:
    if verdict.winner is None:
        return "nothing is pinned: " + "; ".join(verdict.unmet)
    return f"the best way to serve: {verdict.winner.shape}"


def _keep(result: Mapping[str, Any], session: Session) -> None:
    """Keep the plan with its model, and pin the winner; a plan without one leaves what was pinned before."""
    model = session.get_one(Model, result["model_id"])
    model.plan = dict(result)
    if result["pinned"] is not None:
        model.serving = dict(result["pinned"])
    note_change(session, f"models/{model.id}", {"status": "planned", "pinned": result["pinned"]})


def _as_json(row: PlanRow) -> dict[str, Any]:
    values = asdict(row)
    shape = values.pop("shape")
    numbers = {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
    return {**shape, **numbers}
