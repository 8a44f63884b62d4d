"""All that is wrong with a training request, at once: fields that contradict one another, beside wrong ones.

A field that is wrong by itself has no value that others could contradict, so it becomes a hole: what looks
into it is left out, and everything else is still looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass, replace
from functools import partial
from typing import Any, cast

from pydantic import ValidationError

from app.api.faults import NOT_KNOWN, invalid_input, pointer_to, problems_of
from app.api.suggestions import did_you_mean
from app.errors import Problem
from app.training.schemas import READERS, TRAIN_REQUESTS, TrainRequest
from detection.architectures import ARCHITECTURES, Architecture
from detection.errors import UnknownNameError
from detection.families import FAMILIES
from detection.families.reading import family_named, has_option
from detection.training.checks import Check
from detection.training.config import TrainingConfig
from detection.training.recipes import checks_of

Look = Callable[[TrainingConfig], list[Problem]]
INDICES = re.compile(r"(/[0-9]+)+$")
"""The end of a pointer into a list, which is wrong as a whole when one of its members is."""


class HoleError(Exception):
    """Somebody looked at a field that has no value."""


class Holed:
    """An object some of whose fields, or of its parts' fields, have no value."""

    def __init__(self, whole: object, holes: Collection[str], pointer: str = "") -> None:
        self._whole, self._holes, self._pointer = whole, holes, pointer

    def __getattr__(self, name: str) -> Any:
        pointer = f"{self._pointer}/{name}"
        if pointer in self._holes:
            raise HoleError(pointer)
        value = getattr(self._whole, name)
        return Holed(value, self._holes, pointer) if is_dataclass(value) else value


class NoArchitecture:
    """Stands for an architecture that is not known."""

    def __getattr__(self, name: str) -> Any:
        raise HoleError(name)


def read_request(body: object) -> TrainRequest:
    """Return the body of `POST /train` as a request of the family that it names.

    Raises:
        InvalidInputError: it is wrong; all that is wrong with it is listed, not only what pydantic sees.
    """
    family = family_named(body).name
    read = READERS[family].validate_python
    try:
        return read(body)
    except ValidationError as error:
        shape = TRAIN_REQUESTS[family]
        found = problems_of(error.errors(include_url=False), shape=shape, sent=body)
        raise invalid_input(_all_faults(body, [_of_another(each, family) for each in found], read)) from None


def _of_another(fault: Problem, family: str) -> Problem:
    """Return a fault that says whose a field is, where it is not this family's but another's."""
    owners = [
        each
        for each in FAMILIES
        if fault.problem.startswith(NOT_KNOWN) and has_option(FAMILIES[each], fault.pointer)
    ]
    if not owners:
        return fault
    problem = f"only trainings of {', '.join(owners)} have this field; this one is of {family}"
    return replace(fault, problem=problem)


def _all_faults(
    body: object, found: Sequence[Problem], read: Callable[[object], TrainRequest]
) -> list[Problem]:
    """Return, after those that were `found` in a body, the contradictions in what is left of it.

    Args:
        read: reads a body; it is called with what is left when the wrong fields are taken out.
    """
    holes = {INDICES.sub("", fault.pointer) for fault in found}
    if "" in holes:
        return [*found]
    try:
        request = read({"dataset_id": "any", **_without(body, holes)})
    except ValidationError:
        return [*found]
    return [*found, *contradictions(request, holes)]


def contradictions(request: TrainRequest, holes: Collection[str] = ()) -> list[Problem]:
    """Return what is wrong with a request although each of its fields could be right.

    Args:
        holes: pointers to the fields that are wrong by themselves; what stands there means nothing.
    """
    config = cast(TrainingConfig, Holed(request.config(), holes))
    looks: list[Look] = [
        _architecture_faults,
        *(partial(_recipe_faults, check) for check in checks_of(request.family)),
    ]
    found: list[Problem] = []
    for look in looks:
        with suppress(HoleError):
            found += look(config)
    return found


def _without(body: Any, holes: Collection[str], pointer: str = "") -> Any:
    if not isinstance(body, Mapping):
        return body
    inside = {key: pointer + pointer_to(key) for key in body}
    return {key: _without(body[key], holes, inside[key]) for key in body if inside[key] not in holes}


def _architecture_faults(config: TrainingConfig) -> list[Problem]:
    try:
        ARCHITECTURES[config.architecture]
    except UnknownNameError as error:
        problem = f"{error}{did_you_mean(error.name, error.choices)}"
        return [Problem(pointer="/architecture", problem=problem)]
    return []


def _recipe_faults(check: Check, config: TrainingConfig) -> list[Problem]:
    try:
        architecture = ARCHITECTURES[config.architecture]
    except (UnknownNameError, HoleError):
        architecture = cast(Architecture, NoArchitecture())
    return [Problem(pointer=fault.pointer, problem=fault.problem) for fault in check(config, architecture)]
