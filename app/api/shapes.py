"""What requests and answers are made of: strict bases, and the few kinds of text that users give."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.names import checked_name
from detection.names import INVISIBLE, NAME_LENGTH

EXAMPLE_ID = "019b3c1e-8f10-7d42-a1cf-0b6a5c1d2e3f"
NULL = "\0null"


def _visible(shown: str) -> Any:
    """Return how a text without invisible characters is described.

    Args:
        shown: the example; who fills in forms would make one up from the pattern.
    """
    extra: dict[str, Any] = {"minLength": 1, "pattern": f"^[^{INVISIBLE}]*$"}
    return Field(examples=[shown], json_schema_extra=extra)


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=NAME_LENGTH),
    AfterValidator(checked_name),
    _visible("blood cells"),
]
"""A name that somebody gives."""
NewClassName = Annotated[
    str, StringConstraints(max_length=NAME_LENGTH), AfterValidator(checked_name), _visible("red cell")
]
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH)]
"""The name of a class that is there already: an archive may have given it any characters."""


class Shape(BaseModel):
    """Base of the answers: the text under a field is its description in OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class Wish(BaseModel):
    """Base of the requests: an unknown field is refused."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")


def example_of(shape: type[BaseModel]) -> dict[str, Any]:
    """Return the example of a shape that has one."""
    extra: Any = shape.model_config["json_schema_extra"]
    found: dict[str, Any] = extra["example"]
    return found


def example(**fields: object) -> ConfigDict:
    """Return the configuration of a shape with this example."""
    return ConfigDict(json_schema_extra={"example": _marked(fields)})


def _marked(value: Any) -> Any:
    """Return an example whose nulls FastAPI does not take out; `with_nulls` puts them back."""
    if isinstance(value, dict):
        return {key: _marked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_marked(each) for each in value]
    return NULL if value is None else value


def with_nulls(document: Any) -> Any:
    """Return a document in which the marks of `example` are nulls."""
    if isinstance(document, dict):
        return {key: with_nulls(each) for key, each in document.items()}
    if isinstance(document, list):
        return [with_nulls(each) for each in document]
    return None if document == NULL else document
