"""Read a configuration as it is written: the body of `POST /train`, or what is stored with a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from detection.architectures import ARCHITECTURES
from detection.families import DEFAULT_FAMILY, DEFAULT_OF_TASK, Family, architectures_of, family_of
from detection.tasks import Task
from detection.training.config import TrainingConfig

LONGEST = 100
"""Characters of a name that are compared with others."""


def read_config(written: Mapping[str, Any]) -> TrainingConfig:
    """Return the configuration of the family that `written` is about.

    Raises:
        pydantic.ValidationError: a field is not known, or its value is out of bounds.
    """
    config: TrainingConfig = _adapter(family_named(written)).validate_python(dict(written))
    return config


def family_named(written: object) -> Family[Any]:
    """Return the family of the architecture that a configuration names, or of the one nearest to the name.

    Without any it is that of the task.
    """
    fields: Mapping[Any, Any] = written if isinstance(written, Mapping) else {}
    named, task = fields.get("architecture"), fields.get("task")
    default = DEFAULT_OF_TASK[Task(task)] if task in list(Task) else DEFAULT_FAMILY
    if not isinstance(named, str):
        return default
    near = [named] if named in ARCHITECTURES else get_close_matches(named[:LONGEST], ARCHITECTURES, n=1)
    return family_of(near[0]) if near else default


def config_schema(family: Family[Any]) -> dict[str, Any]:
    """Return the JSON schema of a family's configuration."""
    schema = _adapter(family).json_schema()
    schema["properties"] |= chosen_by(family, schema["properties"])
    return schema


def chosen_by(family: Family[Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas of the two fields that tell a family from the others."""
    task = {name: value for name, value in properties["task"].items() if name != "$ref"}
    return {
        "task": {**task, "type": "string", "enum": [family.config.task.value]},
        "architecture": {**properties["architecture"], "enum": architectures_of(family)},
    }


def has_option(family: Family[Any], pointer: str) -> bool:
    """Return whether a JSON pointer is that of an option of the family's configuration."""
    kind: Any = family.config
    for name in pointer.split("/")[1:]:
        options = get_type_hints(kind) if is_dataclass(kind) else {}
        if name not in options:
            return False
        kind = options[name]
    return True


@lru_cache
def _adapter(family: Family[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(family.config)
