"""Which model answers: what the database says when the request comes; a moved alias counts at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from datetime import datetime

import msgspec
from sqlalchemy import case, or_, select
from sqlalchemy.orm import Session

from app.database.changes import Changes
from app.database.fresh import Fresh
from app.database.session import Sessions
from app.database.tables import Model, ModelFile
from app.detect.wire import ServedModel, WeightsFile
from app.errors import InvalidInputError, NoModelError, NotFoundError, Place, Problem, WrongTaskError
from detection.inference.serving import ServingShape
from detection.model_record import ModelRecord
from detection.tasks import Task

DEFAULT_ALIAS = "production"
MOST_REMEMBERED = 100
MOST_PINNED = 20
"""Models without a name that are loaded before anybody asks for them, because somebody had them measured."""

_IS_DERIVED = or_(Model.origin == "pruned", Model.provenance["reproduction"].as_string().is_not(None))
"""Of a model that was made to be compared with another: it serves when it is told to, or alone."""

_Version = tuple[str, datetime]
"""A model's id, and when its row last changed."""
_Asked = tuple[str | None, Task]
"""An id or alias, and what the model must be for."""


class ModelChoice:
    """One small query after each commit; what a model is made of is read once and remembered."""

    def __init__(self, reading: Sessions, changes: Changes) -> None:
        self._reading = reading
        self._chosen = Fresh(self._read, changes)
        self._known: OrderedDict[_Version, ServedModel] = OrderedDict()
        self._lock = threading.Lock()

    async def choose(self, wanted: str | None) -> ServedModel:
        """Return the detector with this id or alias; without one, the default.

        Raises:
            NotFoundError: no model has this id or alias.
            NoModelError: there is no detector at all.
            WrongTaskError: the model is a classifier.
        """
        return await self._chosen.get((wanted, Task.DETECT))

    async def choose_classifier(self, wanted: str | None) -> ServedModel | None:
        """Return the classifier with this id or alias; None when none is wanted.

        Raises:
            NotFoundError: no model has this id or alias.
            WrongTaskError: the model is a detector.
        """
        return None if wanted is None else await self._chosen.get((wanted, Task.CLASSIFY))

    def describe(self, model_id: str) -> ServedModel:
        """Return what the engine must know of a model, of whichever task.

        Raises:
            NotFoundError: there is none with this id.
        """
        with self._reading() as session:
            return _describe(session, model_id)

    def held(self) -> tuple[ServedModel, ...]:
        """Return the models that are asked for by name, and before them the one that needs no name."""
        named = select(Model.id, Model.updated_at).where(Model.alias.is_not(None)).order_by(Model.id.desc())
        with self._reading() as session:
            versions = [(row.id, row.updated_at) for row in session.execute(named)]
            with suppress(NoModelError):
                versions.insert(0, _find(session, None, Task.DETECT))
            return tuple(self._described(session, version) for version in dict.fromkeys(versions))

    def pinned(self) -> tuple[ServedModel, ...]:
        """Return the models that a plan was pinned to and that have no name, the last one first."""
        query = (
            select(Model.id, Model.updated_at)
            .where(Model.alias.is_(None), Model.serving["backend"].as_string().is_not(None))
            .order_by(Model.updated_at.desc())
            .limit(MOST_PINNED)
        )
        with self._reading() as session:
            versions = [(row.id, row.updated_at) for row in session.execute(query)]
            return tuple(self._described(session, version) for version in versions)

    def _read(self, asked: _Asked) -> ServedModel:
        wanted, task = asked
        with self._reading() as session:
            return self._described(session, _find(session, wanted, task))

    def _described(self, session: Session, version: _Version) -> ServedModel:
        known = self._recall(version)
        if known is None:
            known = _describe(session, version[0])
            self._remember(version, known)
        return known

    def _recall(self, version: _Version) -> ServedModel | None:
        with self._lock:
            known = self._known.get(version)
            if known is not None:
                self._known.move_to_end(version)
            return known

    def _remember(self, version: _Version, model: ServedModel) -> None:
        with self._lock:
            self._known[version] = model
            while len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)


def class_ids(model: ServedModel, names: list[str], place: Place) -> tuple[int, ...] | None:
    """Return the indices of classes by name; None for all.

    Raises:
        InvalidInputError: the model does not know one of them.
    """
    if not names:
        return None
    known = {name: index for index, name in enumerate(model.record.classes)}
    problems = [
        Problem(pointer=f"/classes/{index}", problem=f"the model knows no class {name!r}", place=place)
        for index, name in enumerate(names)
        if name not in known
    ]
    if problems:
        classes = ", ".join(model.record.classes[:20]) + (", …" if len(known) > 20 else "")
        raise InvalidInputError(f"{problems[0].problem}; it knows: {classes}", problems=problems)
    return tuple(sorted({known[name] for name in names}))


def _find(session: Session, wanted: str | None, task: Task) -> _Version:
    query = select(Model.id, Model.updated_at, Model.task).limit(1)
    if wanted is None:
        # An id sorts by the time it was made.
        query = query.where(Model.task == task).order_by(
            case((Model.alias == DEFAULT_ALIAS, 0), else_=1), case((_IS_DERIVED, 1), else_=0), Model.id.desc()
        )
    else:
        query = query.where(or_(Model.id == wanted, Model.alias == wanted))
        query = query.order_by(case((Model.id == wanted, 0), else_=1))
    row = session.execute(query).one_or_none()
    if row is not None:
        if row.task != task:
            raise WrongTaskError(_wrong_task(row.id, task))
        return row.id, row.updated_at
    if wanted is None:
        raise NoModelError("train one with POST /train, or bring one with POST /models/import")
    raise NotFoundError(f"there is no model with the id or alias {wanted!r}")


def default_model_id(session: Session) -> str | None:
    """Return the detector that answers when none is named; None when there is none."""
    with suppress(NoModelError):
        return _find(session, None, Task.DETECT)[0]
    return None


def _wrong_task(model_id: str, wanted: Task) -> str:
    if wanted is Task.DETECT:
        return f"the model {model_id} is a classifier: it looks at boxes, as `classifier` beside a `model`"
    return f"the model {model_id} is a detector: it finds boxes, as `model`; `classifier` takes a classifier"


def _describe(session: Session, model_id: str) -> ServedModel:
    row = session.execute(select(Model.record, Model.serving).where(Model.id == model_id)).one_or_none()
    if row is None:  # deleted since its id was found
        raise NotFoundError(f"there is no model {model_id}")
    files = session.scalars(select(ModelFile).where(ModelFile.model_id == model_id))
    return ServedModel(
        id=model_id,
        record=msgspec.convert(row.record, ModelRecord),
        files=tuple(WeightsFile(file.format, file.key, file.size_bytes, file.sha256) for file in files),
        shape=msgspec.convert(row.serving, ServingShape | None),
    )
