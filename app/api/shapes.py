"""What requests and answers are made of: strict bases, and the few kinds of text that users give."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

EXAMPLE_ID = "019b3c1e-8f10-7d42-a1cf-0b6a5c1d2e3f"
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
"""No control characters: not in names, not in logs, not in files that are written later."""

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PRINTABLE)
]
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE)]


class Shape(BaseModel):
    """Base of the answers: the text under a field is its description in OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class Wish(BaseModel):
    """Base of the requests: an unknown field is refused."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")


def example(**fields: object) -> ConfigDict:
    """Return the configuration of a shape with this example."""
    return ConfigDict(json_schema_extra={"example": fields})  # type: ignore[dict-item]
