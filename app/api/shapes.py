"""What requests and answers are made of: strict bases, and the few kinds of text that users give."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.names import INVISIBLE, NAME_LENGTH, checked_name

EXAMPLE_ID = "019b3c1e-8f10-7d42-a1cf-0b6a5c1d2e3f"
_VISIBLE = Field(json_schema_extra={"minLength": 1, "pattern": f"^[^{INVISIBLE}]*$"})

Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=NAME_LENGTH),
    AfterValidator(checked_name),
    _VISIBLE,
]
"""A name that somebody gives."""
NewClassName = Annotated[
    str, StringConstraints(max_length=NAME_LENGTH), AfterValidator(checked_name), _VISIBLE
]
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH)]
"""The name of a class that is there already: an archive may have given it any characters."""


class Shape(BaseModel):
    """Base of the answers: the text under a field is its description in OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class Wish(BaseModel):
    """Base of the requests: an unknown field is refused."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")


def example(**fields: object) -> ConfigDict:
    """Return the configuration of a shape with this example."""
    return ConfigDict(json_schema_extra={"example": fields})  # type: ignore[dict-item]
