"""The rules of models: names and aliases, files, imports, evaluations, and when one may go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.api.faults import field_fault
from app.api.idempotency import Once
from app.audit import Author, note_write
from app.database.tables import Dataset, Evaluation, Job, JobTransition, Model, ModelFile, new_id, utc_now
from app.datasets.service import ready_dataset, upload_prefix
from app.detect.model_choice import default_model_id
from app.errors import (
    EmptySplitError,
    FileNotMadeError,
    HarrierError,
    InUseError,
    InvalidInputError,
    NoCommonClassesError,
    NotFoundError,
    Problem,
)
from app.jobs.protocol import add_job, note_change
from app.jobs.schemas import JobRead
from app.jobs.service import check_queue_has_room, commit_and_announce, read_job
from app.jobs.states import ACTIVE, QUEUE_OF, JobKind, JobStatus
from app.models.schemas import (
    EvaluateWish,
    EvaluationDetail,
    EvaluationRead,
    FileRead,
    ImportFields,
    ModelMetrics,
    ModelPatch,
    ModelRead,
    WeightsFormat,
)
from app.models.serving import ServingRead
from app.settings import Settings
from app.storage import Storage
from app.task_queue import Bell
from app.usage.service import take_room
from detection.tasks import Task

if TYPE_CHECKING:
    from app.api.uploads import UploadedForm


def get_model(session: Session, model_id: str) -> Model:
    model = session.get(Model, model_id)
    if model is None:
        raise NotFoundError(f"there is no model {model_id}{_by_alias(session, model_id)}")
    return model


def _by_alias(session: Session, name: str) -> str:
    """Return which id was meant by an alias: names move, and what is changed or measured must not."""
    meant = session.scalars(select(Model.id).where(Model.alias == name)).one_or_none()
    return f"; here an id is needed, and that alias means {meant} now" if meant else ""


def read_model(session: Session, model: Model) -> ModelRead:
    return read_models(session, [model])[0]


def read_models(session: Session, models: Sequence[Model]) -> list[ModelRead]:
    """Return models as users see them, with one query for the files of all."""
    of_model: dict[str, list[ModelFile]] = {model.id: [] for model in models}
    files = select(ModelFile).where(ModelFile.model_id.in_(of_model)).order_by(ModelFile.format)
    for file in session.scalars(files):
        of_model[file.model_id].append(file)
    default = default_model_id(session)
    return [_shown(model, of_model[model.id], is_default=model.id == default) for model in models]


def change_model(session: Session, model_id: str, patch: ModelPatch, author: Author) -> ModelRead:
    """Rename a model, or give it an alias, which its former holder loses in the same moment."""
    model = get_model(session, model_id)
    if patch.name is not None:
        model.name = patch.name
    if "alias" in patch.model_fields_set:
        _move_alias(session, model, patch.alias)
    if "serving" in patch.model_fields_set:
        model.serving = None
    note_change(
        session, f"models/{model_id}", {"status": "changed", "name": model.name, "alias": model.alias}
    )
    note_write(session, author, "model.change", f"models/{model_id}")
    session.commit()
    return read_model(session, model)


def delete_model(session: Session, model_id: str, author: Author) -> None:
    """Forget a model that no job uses; its files are removed afterwards."""
    model = session.scalars(select(Model).where(Model.id == model_id).with_for_update()).one_or_none()
    if model is None:
        raise NotFoundError(f"there is no model {model_id}")
    user = session.scalars(
        select(Job)
        .where(or_(Job.model_id == model_id, Job.reproduces == model_id), Job.status.in_(ACTIVE))
        .limit(1)
    ).one_or_none()
    if user is not None:
        raise InUseError(f"the {user.kind} job {user.id} still uses it", links={"job": f"/jobs/{user.id}"})
    session.delete(model)
    note_change(session, f"models/{model_id}", {"status": "deleted"})
    note_write(session, author, "model.delete", f"models/{model_id}")
    session.commit()


def remove_files(storage: Storage, model_id: str) -> None:
    """Remove what a deleted model has left; what a crash leaves is found by the janitor."""
    storage.delete_all(f"models/{model_id}/")


def find_file(session: Session, model_id: str, wanted: WeightsFormat) -> tuple[Model, ModelFile]:
    """Return one of a model's files; a 409 with the way to it when it was not made yet."""
    model = get_model(session, model_id)
    file = session.get(ModelFile, (model_id, wanted.value))
    if file is None:
        raise FileNotMadeError(
            f"this model has no {wanted} file yet: POST /models/{model_id}/export makes one",
            links={"export": f"/models/{model_id}/export"},
        )
    return model, file


def queue_import(
    session: Session,
    storage: Storage,
    settings: Settings,
    bell: Bell,
    form: UploadedForm,
    fields: ImportFields,
    *,
    author: Author,
    once: Once,
) -> JobRead:
    """Take uploaded weights into the storage and queue the job that reads them."""
    job_id, name = new_id(), fields.name or form.file.shown_name or "imported"
    key = f"{upload_prefix(job_id)}weights"
    config = {
        "upload_key": key,
        "name": name,
        "architecture": fields.architecture,
        "classes": fields.classes,
        "input_convention": _convention(fields),
        "file_name": form.file.file_name[:300],
        "sha256": form.file.sha256,
        "size_bytes": form.file.size_bytes,
    }
    storage.adopt(key, form.file.path)
    try:
        check_queue_has_room(session, settings)
        take_room(session, settings, form.file.size_bytes)
        job = add_job(session, JobKind.MODEL_IMPORT, name=name, config=config, job_id=job_id)
        return commit_and_announce(session, bell, job, action="model.import", author=author, once=once)
    except HarrierError:  # of any other error it is not sure that nothing was committed: the janitor looks
        session.rollback()
        storage.delete_all(upload_prefix(job_id))
        raise


def queue_export(
    session: Session,
    settings: Settings,
    bell: Bell,
    model_id: str,
    wanted: WeightsFormat,
    *,
    author: Author,
    once: Once,
) -> JobRead:
    """Queue the making of a file; when it is there already, the job has ended before it begins."""
    model = get_model(session, model_id)
    config = {"model_id": model_id, "format": wanted.value}
    name = f"{model.name} as {wanted}"[:200]
    if session.get(ModelFile, (model_id, wanted.value)) is not None:
        return _export_done(session, name, config, author=author, once=once)
    check_queue_has_room(session, settings)
    job = add_job(session, JobKind.EXPORT, name=name, config=config, model_id=model_id)
    return commit_and_announce(session, bell, job, action="model.export", author=author, once=once)


def queue_evaluation(
    session: Session,
    settings: Settings,
    bell: Bell,
    model_id: str,
    wish: EvaluateWish,
    *,
    author: Author,
    once: Once,
) -> JobRead:
    """Queue the measuring of a model on a split; at least one class must be common, by name."""
    model = get_model(session, model_id)
    if wish.tta is not None and model.task == Task.CLASSIFY:
        raise field_fault("tta", "a classifier looks at every crop once; only detectors have passes")
    dataset, _ = ready_dataset(session, wish.dataset_id)
    if not dataset.splits.get(wish.split, {}).get("images"):
        raise EmptySplitError(f"the dataset has no pictures in `{wish.split}`")
    if not set(model.classes) & set(_words_of(dataset, model)):
        raise NoCommonClassesError("model and dataset have no class of the same name")
    check_queue_has_room(session, settings)
    job = add_job(
        session,
        JobKind.EVALUATE,
        name=f"evaluation of {model.name} on {dataset.name}"[:200],
        config={"model_id": model_id, **wish.model_dump(mode="json")},
        dataset_id=dataset.id,
        model_id=model_id,
    )
    return commit_and_announce(session, bell, job, action="model.evaluate", author=author, once=once)


def _words_of(dataset: Dataset, model: Model) -> Iterable[str]:
    """Return what the boxes of a dataset are called, as far as a model speaks of it."""
    attribute = model.record.get("attribute")
    words: Iterable[str] = dataset.classes
    if attribute is not None:
        words = (dataset.attributes or {}).get(attribute, {})
    return words


def get_evaluation(session: Session, evaluation_id: str) -> EvaluationDetail:
    evaluation = session.get(Evaluation, evaluation_id)
    if evaluation is None:
        raise NotFoundError(f"there is no evaluation {evaluation_id}")
    return EvaluationDetail(
        **dict(read_evaluation(evaluation)),
        curves=evaluation.curves,
        confusion_matrix=evaluation.confusion_matrix,
    )


def read_evaluation(evaluation: Evaluation) -> EvaluationRead:
    links = {"self": f"/evaluations/{evaluation.id}", "model": f"/models/{evaluation.model_id}"}
    return EvaluationRead(
        id=evaluation.id,
        model_id=evaluation.model_id,
        dataset_id=evaluation.dataset_id,
        dataset_sha256=evaluation.dataset_sha256,
        split=evaluation.split,
        metrics=evaluation.metrics,
        tta=evaluation.tta,
        job_id=evaluation.job_id,
        created_at=evaluation.created_at,
        links=links,
    )


def _move_alias(session: Session, model: Model, alias: str | None) -> None:
    if alias is not None:
        session.execute(update(Model).where(Model.alias == alias, Model.id != model.id).values(alias=None))
    model.alias = alias


def _convention(fields: ImportFields) -> str | dict[str, Any] | None:
    try:
        return fields.convention()
    except ValidationError as error:
        problem = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        )
        fault = Problem(pointer="/input_convention", problem=problem.removeprefix(": "))
        raise InvalidInputError(
            "input_convention is neither a name nor a convention", problems=[fault]
        ) from None


def _export_done(
    session: Session, name: str, config: dict[str, Any], *, author: Author, once: Once
) -> JobRead:
    """Record an export that had nothing to do; the same shape as one that worked for a minute."""
    job = Job(
        kind=JobKind.EXPORT,
        queue=QUEUE_OF[JobKind.EXPORT],
        name=name,
        status=JobStatus.SUCCEEDED,
        stage="done",
        config=config,
        model_id=config["model_id"],
        result=config,
        ended_at=utc_now(),
        progress={"fraction": 1.0},
        metrics={},
        timing={},
        attempt=0,
        version=0,
    )
    session.add(job)
    session.flush()
    session.add(JobTransition(job_id=job.id, status=JobStatus.SUCCEEDED, attempt=0, reason="it was there"))
    note_write(session, author, "model.export", f"models/{config['model_id']}")
    session.flush()
    shown = read_job(session, job)
    location = {"Location": f"/jobs/{job.id}"}
    once.answer(session, status_code=202, headers=location, body=shown)
    session.commit()
    return shown


def _shown(model: Model, files: Sequence[ModelFile], *, is_default: bool) -> ModelRead:
    return ModelRead(
        id=model.id,
        name=model.name,
        alias=model.alias,
        is_default=is_default,
        origin=model.origin,
        task=Task(model.task),
        architecture=model.architecture,
        classes=model.classes,
        input_size=model.input_size,
        metrics=ModelMetrics.model_validate(model.metrics) if model.metrics else None,
        parameters=model.parameters,
        gflops=model.gflops,
        record=model.record,
        provenance=model.provenance,
        files=[FileRead.model_validate(file) for file in files],
        serving=None if model.serving is None else ServingRead.model_validate(model.serving),
        job_id=model.job_id,
        created_at=model.created_at,
        updated_at=model.updated_at,
        links=_links(model),
    )


def _links(model: Model) -> dict[str, str]:
    here = f"/models/{model.id}"
    calls = ["weights", "export", "evaluate", "evaluations", "profile"]
    if model.task == Task.DETECT:
        calls += ["prune", "plan"]
    if model.origin == "trained":
        calls.append("reproduce")
    links = {name: f"{here}/{name}" for name in calls}
    role = "classifier" if model.task == Task.CLASSIFY else "model"
    return {"self": here, **links, "detect": f"/detect?{role}={model.alias or model.id}"}
