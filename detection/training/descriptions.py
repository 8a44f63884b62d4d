"""Descriptions of inherited fields in JSON schemas: pydantic reads those of a class's own fields only."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any


def describe_inherited(schema: dict[str, Any], kind: type) -> None:
    """Add to the JSON schema of a dataclass what its bases say about the fields that it has from them."""
    from pydantic import TypeAdapter  # only pydantic calls this; configurations work without it

    for base in filter(is_dataclass, kind.__mro__[1:]):
        for name, inherited in TypeAdapter(base).json_schema()["properties"].items():
            if "description" in inherited:
                schema["properties"][name].setdefault("description", inherited["description"])
