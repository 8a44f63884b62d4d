"""The plain fields of a form: validated like a JSON body, and described in OpenAPI like one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.api.faults import file_wanted, invalid_input, pointer_to, problems_of
from app.errors import Problem

Fields = TypeVar("Fields", bound=BaseModel)


def parse_fields(
    kind: type[Fields], fields: Mapping[str, str | list[str]], *, files: Collection[str] = ()
) -> Fields:
    """Return the fields of a form as `kind`; an empty field counts as absent.

    Args:
        files: what should have come as a file; a text of that name is a file that was only named.

    Raises:
        InvalidInputError: with a pointer per fault.
    """
    given = {name: value for name, value in fields.items() if value != ""}
    problems = [*_only_named(given, files)]
    try:
        parsed = kind.model_validate({name: given[name] for name in given if name not in files})
    except ValidationError as error:
        problems += problems_of(error.errors(include_url=False), shape=kind)
        raise invalid_input(problems) from None
    if problems:
        raise invalid_input(problems)
    return parsed


def _only_named(given: Mapping[str, str | list[str]], files: Collection[str]) -> Iterator[Problem]:
    for name in files:
        if name in given:
            value = given[name]
            text = value if isinstance(value, str) else value[0]
            yield Problem(pointer=pointer_to(name), problem=file_wanted(name, text))


def form_body(
    kind: type[BaseModel], *, file: str, description: str, example: Mapping[str, Any]
) -> dict[str, Any]:
    """Return OpenAPI's `requestBody` of a form with one file."""
    schema = inlined(kind.model_json_schema())
    properties = {file: {"type": "string", "format": "binary", "description": description}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": [file, *schema.get("required", ())],
                        "properties": {**properties, **schema["properties"]},
                        "additionalProperties": False,
                    },
                    "example": example,
                }
            },
        }
    }


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without `$defs`: what they define stands where it is used."""
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                name = part["$ref"].rpartition("/")[2]
                return {**resolve(definitions[name]), **{k: v for k, v in part.items() if k != "$ref"}}
            return {key: resolve(value) for key, value in part.items()}
        if isinstance(part, list):
            return [resolve(value) for value in part]
        return part

    found: dict[str, Any] = resolve(schema)
    return found
